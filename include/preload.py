"""Imports what tasks need before they are forked: seconds in each task that imports, nothing in one that inherits.

`$AIRFLOW_HOME/config/airflow_local_settings.py`, Airflow's own hook for site settings, holds two lines:

    from include.preload import preload
    preload()

Imports, and what libraries read from their own files. Nothing else: a parent that has run OpenMP code, or made a Kafka
client, leaves its children locks that nobody opens.
What is imported here stays as it is until the scheduler starts again, this product's own code too.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial

log = logging.getLogger(__name__)

# What forks the tasks: LocalExecutor's scheduler, and a Celery worker.
_FORKING = (("scheduler",), ("celery", "worker"))

MODULES = (
    # Libraries, a heavy one's parts named where it would import them later.
    "boto3.s3.inject",
    "boto3.s3.transfer",
    "confluent_kafka.admin",
    "imblearn.pipeline",
    "jinja2",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.tracking.request_header.registry",
    "msgspec",
    "multiprocessing.dummy",
    "narwhals._pandas_like.namespace",
    "narwhals.stable.v2._namespace",
    "netrc",
    "pandas",
    "psycopg2",
    "pyarrow.fs",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.pipeline",
    # The steps, and what they import when they run.
    "include.batch.cleaning",
    "include.batch.drain",
    "include.batch.outbox",
    "include.batch.predict",
    "include.batch.publish",
    "include.ledger.recorded_batches",
    "include.ledger.recorder",
    "include.models.model_cache",
    "include.models.load",
    "include.models.resolve",
    "include.models.scoring",
    "include.models.mlflow_client",
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
    "fraud_scoring.report_operator",
    "fraud_scoring.incidents",
    "fraud_scoring.operators",
    "fraud_scoring.operators.record_operators",
    "jinja2.ext",
)


def preload() -> None:
    """In any other process, say an API server's, it does nothing."""
    words = tuple(word for word in sys.argv[1:] if not word.startswith("-"))
    if not any(words[: len(start)] == start for start in _FORKING):
        return
    for name in MODULES:
        _try(name, partial(importlib.import_module, name))
    _try("what boto3 says of S3", _describe_s3)


def _try(what: str, step: Callable[[], object]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step()
    except Exception:
        # The task that needs it fails and says why; the scheduler has other DAGs too.
        log.warning("%s cannot be preloaded: tasks that need it will be slow or fail", what, exc_info=True)


def _describe_s3() -> None:
    """Give boto3's default session the files that describe S3, so that tasks need not read them: a first client takes a
    fifth of the processor time (benchmarks/shortcuts.py). Credentials and settings stay each task's own."""
    import boto3
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader(os.environ.get("AWS_DATA_PATH"))
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", name, api_version=None)
    loader.load_data("endpoints")
    session = botocore.session.get_session()
    session.register_component("data_loader", loader)
    boto3.setup_default_session(botocore_session=session)
