"""Open MLflow for a training: check that it answers, silence its advice, and translate its errors."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import mlflow
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.exceptions import MlflowException

from include.errors import ModelStoreError, SettingError
from include.models.mlflow_server import MlflowServer
from include.models.tracking_uri import TRACKING, registry_uri, tracking_uri, without_credentials
from include.storage.s3_errors import causes, first_line

QUIET_CONFIG = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
RETRY_CONFIG = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
NO_RETRY_CONFIG = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@contextlib.contextmanager
def mlflow_session() -> Iterator[str]:
    """Check that MLflow answers, and yield its address.

    Raise SettingError if the address is invalid or the server too old, and ModelStoreError if MLflow does not answer,
    or if it raises an error inside the context.
    """
    address = tracking_uri()
    registry_uri()
    with _quiet():
        with _translate_errors(address, "does not answer"), _environment(NO_RETRY_CONFIG):
            client = mlflow.MlflowClient(address)
            version_error = MlflowServer(client).version_error()
            if version_error is None:
                client.search_experiments(max_results=1)
        if version_error:
            raise SettingError(f"{TRACKING}={without_credentials(address)}: {version_error}")
        with _translate_errors(address, "did not accept the run"), _environment({**RETRY_CONFIG, **os.environ}):
            yield address


def page_urls(address: str, experiment_id: str, run_id: str, name: str, version: str) -> tuple[str, ...]:
    """Return the URLs of the run's and the registered model's pages; none if MLflow has no server."""
    if not address.startswith(("http://", "https://")):
        return ()
    root = without_credentials(address).rstrip("/")
    return (f"{root}/#/experiments/{experiment_id}/runs/{run_id}", f"{root}/#/models/{name}/versions/{version}")


@contextlib.contextmanager
def _translate_errors(address: str, failure: str) -> Iterator[None]:
    """Raise ModelStoreError in place of the errors of MLflow, boto3 and the network."""
    try:
        yield
    except (MlflowException, Boto3Error, BotoCoreError, ClientError, OSError) as error:
        reason = _root_cause(error).replace(address, without_credentials(address))
        raise ModelStoreError(
            f"MLflow at {without_credentials(address)} (MLFLOW_TRACKING_URI) {failure}: {reason}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow, skops and matplotlib: a user who trains a model cannot act on their advice."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    # MLflow's registry prints the version to stderr, which TrainedRun reports as well.
    with warnings.catch_warnings(), _environment(QUIET_CONFIG), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _root_cause(error: BaseException) -> str:
    """Return one line: the operating system's text, such as "Connection refused", else the error's first line."""
    texts = [cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror]
    return texts[-1] if texts else (first_line(error) or type(error).__name__)[:300]
