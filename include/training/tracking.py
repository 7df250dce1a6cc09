"""MLflow as training uses it: asked first whether it is there, quiet, and with errors that name it."""

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
from include.models.mlflow_server import Server
from include.models.tracking_uri import TRACKING, registry_uri, tracking_uri, without_credentials

QUIET_CONFIG = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
RETRY_CONFIG = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
NO_RETRY_CONFIG = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@contextlib.contextmanager
def mlflow_session() -> Iterator[str]:
    """Yields MLflow's address; before that it has answered, and its errors inside become ModelStoreError."""
    address = tracking_uri()
    registry_uri()
    with _quiet():
        with _translate_errors(address, "does not answer"), _environment(NO_RETRY_CONFIG):
            client = mlflow.MlflowClient(address)
            old = Server(client).version_error()
            if old is None:
                client.search_experiments(max_results=1)
        if old:
            raise SettingError(f"{TRACKING}={without_credentials(address)}: {old}")
        with _translate_errors(address, "did not take the run"), _environment({**RETRY_CONFIG, **os.environ}):
            yield address


def page_urls(address: str, experiment_id: str, run_id: str, name: str, version: str) -> tuple[str, ...]:
    """The run's and the registered model's pages, where MLflow has pages."""
    if not address.startswith(("http://", "https://")):
        return ()
    root = without_credentials(address).rstrip("/")
    return (f"{root}/#/experiments/{experiment_id}/runs/{run_id}", f"{root}/#/models/{name}/versions/{version}")


@contextlib.contextmanager
def _translate_errors(address: str, what: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, Boto3Error, BotoCoreError, ClientError, OSError) as error:
        reason = _root_cause(error).replace(address, without_credentials(address))
        raise ModelStoreError(
            f"MLflow at {without_credentials(address)} (MLFLOW_TRACKING_URI) {what}: {reason}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What MLflow, skops and matplotlib advise or announce is nothing that who trains a model can act on."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    # The registry prints to stderr what TrainedRun says anyway.
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
    """One line: what the system said at the bottom of it ("Connection refused"), else the error's own first line."""
    chain: list[BaseException] = [error]
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    said = [link.strerror for link in chain if isinstance(link, OSError) and link.strerror]
    return said[-1] if said else (str(error).splitlines() or [type(error).__name__])[0][:300]
