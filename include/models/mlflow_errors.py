"""Translate errors of MLflow and its artifact store to SettingError, ModelStoreError and ModelStoreAccessError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from include.errors import ModelStoreAccessError, ModelStoreError, SettingError
from include.models.artifact_uri import redact
from include.models.mlflow_server import MlflowServer
from include.models.tracking_uri import TRACKING, without_credentials
from include.storage.s3_errors import S3Fault, S3Settings, causes, find_fault

# MLflow's error codes for a run, model or version that it does not have.
NOT_FOUND_CODES = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
_NO_ENDPOINT = "ENDPOINT_NOT_FOUND"
_S3 = S3Settings.of_connection("the connection aws_default", "the experiment's artifact location")
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def translate_errors(uri: str, server: MlflowServer) -> Iterator[None]:
    """Raise one of our errors in place of an error of MLflow, its artifact store or the network.

    Raise SettingError if the server is too old for the request, ModelStoreAccessError for wrong keys, and
    ModelStoreError, after which a retry may succeed, for all others. `uri` is MLflow's tracking URI.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, BotoCoreError, ClientError, Boto3Error, OSError) as error:
        text = redact(str(error), uri)
        lacks_endpoint = isinstance(error, MlflowException) and error.error_code == _NO_ENDPOINT
        if lacks_endpoint and (too_old := server.version_error()):
            raise SettingError(f"{TRACKING}={without_credentials(uri)}: {too_old}") from error
        name, remedy = f"MLflow at {without_credentials(uri)}", f"is it up, and is {TRACKING} right?"
        fault = find_fault(error)
        if fault or any(isinstance(cause, (BotoCoreError, ClientError, Boto3Error)) for cause in causes(error)):
            name, remedy = f"the artifact store of {name}", _S3.remedy(fault or S3Fault.NO_ANSWER)
        kind = ModelStoreAccessError if fault is S3Fault.WRONG_KEYS else ModelStoreError
        raise kind(f"request to {name} failed: {text}: {remedy}") from error


def is_full_disk(error: BaseException) -> bool:
    """Return whether the disk is full. MLflow may have wrapped the OSError, or only quoted its text."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL_DISK) or "No space left on device" in str(cause)
        for cause in causes(error)
    )


def is_missing_bucket(error: BaseException) -> bool:
    """Return whether the artifact store says that its bucket does not exist."""
    return find_fault(error) is S3Fault.NO_BUCKET
