"""Register what this product adds to Airflow."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from fraud_scoring.links import ModelRunLink


class FraudPlugin(AirflowPlugin):
    """Register the link to MLflow, so that the web server can build it."""

    name = "fraud_scoring"
    operator_extra_links = [ModelRunLink()]  # noqa: RUF012
