"""Imports the modules that tasks need before tasks are forked, which saves each task seconds.

Two lines in `$AIRFLOW_HOME/config/airflow_local_settings.py`, which Airflow imports when it starts, call it:

    from include.preload import preload
    preload()

It only imports modules, reads the settings once, and lets libraries read their own data files. It must not run OpenMP
code or create a Kafka client: forked tasks would inherit locks that no thread releases.
A change to an imported module, this product's included, takes effect when the scheduler or worker restarts.
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

# The airflow commands that fork tasks: the scheduler with LocalExecutor, and a Celery worker.
_FORKING_COMMANDS = (("scheduler",), ("celery", "worker"))

MODULES = (
    # Libraries, and submodules that heavy libraries would import only when they are used.
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
    # The steps of a run, and modules that they import when they run.
    "include.batch.cleaning",
    "include.batch.batch_alarms",
    "include.batch.drain",
    "include.batch.outbox",
    "include.batch.planner",
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
    # For the tasks' connections and callbacks.
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.sdk.execution_time.cache",
    # For parsing the DAG file, which each task does again.
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
    """Import `MODULES` if this process forks tasks; in other processes, such as the API server, do nothing.

    A module that cannot be imported is logged and does not stop the process.
    """
    words = tuple(word for word in sys.argv[1:] if not word.startswith("-"))
    if not any(words[: len(command)] == command for command in _FORKING_COMMANDS):
        return
    for name in MODULES:
        _try(name, partial(importlib.import_module, name))
    _try("boto3's description of S3", _load_s3_description)
    _try("the settings", _read_settings)


def _try(name: str, step: Callable[[], object]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step()
    except Exception:
        # The scheduler must start for other DAGs too. A task that needs the module fails and says why.
        log.warning("%s cannot be preloaded: tasks that need it will be slow or fail", name, exc_info=True)


def _read_settings() -> None:
    """Read the settings once, which lets pydantic build what it needs: a task then reads them in 1 ms instead of 7."""
    from include.settings import Settings

    Settings.usable()


def _load_s3_description() -> None:
    """Load boto3's data files for S3 into its default session, which tasks inherit.

    A task's first S3 client then takes a fifth of the processor time (benchmarks/shortcuts.py). Each task still reads
    its own credentials and settings.
    """
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
