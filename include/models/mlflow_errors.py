"""Translate errors of MLflow and its artifact store to SettingError, ModelStoreError and ModelStoreAccessError."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from include.errors import ModelStoreAccessError, ModelStoreError, SettingError
from include.models.artifact_uri import cleaned
from include.models.mlflow_server import Server
from include.models.tracking_uri import TRACKING, without_credentials

# MLflow's error codes for what it does not have.
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
_NO_ENDPOINT = "ENDPOINT_NOT_FOUND"
_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")
_NO_RIGHT = ("AccessDenied", "403")
_NO_BUCKET = ("NoSuchBucket",)
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def translate_errors(uri: str, server: Server) -> Iterator[None]:
    """Raise ModelStoreError for what may go right on the next try, ModelStoreAccessError for wrong keys, and
    SettingError where the server is too old to know what it was asked for."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, BotoCoreError, ClientError, Boto3Error, OSError) as error:
        text = cleaned(str(error), uri)
        lacks_endpoint = isinstance(error, MlflowException) and error.error_code == _NO_ENDPOINT
        if lacks_endpoint and (old := server.version_error()):
            raise SettingError(f"{TRACKING}={without_credentials(uri)}: {old}") from error
        if _has_code(error, _WRONG_KEYS):
            raise ModelStoreAccessError(
                f"the artifact store of MLflow at {without_credentials(uri)} refuses the keys in the connection "
                f"aws_default: {text}"
            ) from error
        name, remedy = f"MLflow at {without_credentials(uri)}", f"Check that it is up and that {TRACKING} is right"
        if any(isinstance(one, (BotoCoreError, ClientError, Boto3Error)) for one in _causes(error)):
            name = f"the artifact store of {name}"
            remedy = "Check that it is up and that the address in the connection aws_default is right"
            if _has_code(error, _NO_RIGHT):
                remedy = "Check that the keys in the connection aws_default may read it"
        raise ModelStoreError(f"request to {name} failed: {text}. {remedy}") from error


def is_full_disk(error: BaseException) -> bool:
    """MLflow may have wrapped it, or only quoted it."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL_DISK) or "No space left on device" in str(one)
        for one in _causes(error)
    )


def is_missing_bucket(error: BaseException) -> bool:
    return _has_code(error, _NO_BUCKET)


def _has_code(error: BaseException, codes: Collection[str]) -> bool:
    from botocore.exceptions import ClientError

    return any(isinstance(one, ClientError) and one.response["Error"]["Code"] in codes for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
