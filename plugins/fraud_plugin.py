"""What Airflow registers of this product."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from fraud_scoring.links import ModelRunLink


class FraudPlugin(AirflowPlugin):
    name = "fraud_scoring"
    operator_extra_links = [ModelRunLink()]  # noqa: RUF012
