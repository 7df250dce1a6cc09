"""Imports what tasks need before they are forked: seconds in each task that imports, nothing in one that inherits.

`$AIRFLOW_HOME/config/airflow_local_settings.py`, Airflow's own hook for site settings, holds two lines:

    from include.preload import preload
    preload()

Imports only. A parent that has run OpenMP code, or made a Kafka client, leaves its children locks that nobody opens.
What is imported here stays as it is until the scheduler starts again, this product's own code too.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings

log = logging.getLogger(__name__)

# What forks the tasks: LocalExecutor's scheduler, and a Celery worker.
_FORKING = (("scheduler",), ("celery", "worker"))

MODULES = (
    # Libraries, a heavy one's parts named where it would import them later.
    "boto3.s3.transfer",
    "confluent_kafka.admin",
    "imblearn.pipeline",
    "jinja2",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.tracking.request_header.registry",
    "msgspec",
    "pandas",
    "pyarrow.fs",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.pipeline",
    # The steps, and what they import when they run.
    "include.batch.cleaning",
    "include.batch.drain",
    "include.batch.outbox",
    "include.batch.predict",
    "include.batch.publish",
    "include.models.load",
    "include.models.resolve",
    "include.models.score",
    "include.models.store",
    "include.report.report",
    # What the tasks' connections and callbacks need.
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.sdk.execution_time.cache",
    # What parsing the DAG file loads, which each task does again.
    "airflow.providers.smtp.notifications.smtp",
    "airflow.providers.smtp.operators.smtp",
    "airflow.providers.standard.operators.branch",
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.execution_time.timeout",
    "airflow.sdk.execution_time.xcom",
    "fraud_scoring.email",
    "fraud_scoring.incidents",
    "fraud_scoring.operators",
    "jinja2.ext",
)


def preload() -> None:
    """In any other process, say an API server's, it does nothing."""
    words = tuple(word for word in sys.argv[1:] if not word.startswith("-"))
    if not any(words[: len(start)] == start for start in _FORKING):
        return
    for name in MODULES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except Exception:
            # The task that needs it fails and says why; the scheduler has other DAGs too.
            log.warning("%s cannot be preloaded: tasks that need it will be slow or fail", name, exc_info=True)
