"""Airflow's log folder on S3: objects that are older than their time go, as files of the local one do."""

from __future__ import annotations

import posixpath
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from include.errors import HousekeepingError
from include.housekeeping.logs import Trimmed

# What Airflow 3.3 uploads. Of a bucket that holds other things too, they stay.
_AIRFLOWS = ("dag_id=", "executor_callbacks/")
# S3 neither lists nor deletes more in one request.
_AT_ONCE = 1_000
_CONNECTION = "the connection that [logging] remote_log_conn_id names"
_HINTS = {
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch"), f"check the keys in {_CONNECTION}"),
    "AccessDenied": f"the user of {_CONNECTION} needs the rights s3:ListBucket and s3:DeleteObject there",
    "NoSuchBucket": "the bucket does not exist: create it, or set [logging] remote_base_log_folder to another",
}


def trim_remote_logs(client: Any, folder: str, before: datetime) -> Trimmed:
    """`client` is boto3's, `folder` is s3://bucket/prefix. Removes objects that were last written before that time.
    Raises HousekeepingError, at the end where single objects could not be removed."""
    logs = _OldLogs(client, before)
    for name in _AIRFLOWS:
        # As Airflow's own handler puts a key together.
        place = urlsplit(posixpath.join(folder, name))
        try:
            logs.remove(place.netloc, place.path.lstrip("/"))
        except (BotoCoreError, ClientError) as error:
            raise HousekeepingError(
                f"old logs of {folder} cannot be removed: {error}{_hint(error)}; {logs.files} were removed"
            ) from error
    if logs.refused:
        raise HousekeepingError(
            f"{logs.refused} old logs of {folder} cannot be removed, the first is {logs.first_refused}; "
            f"{logs.files} others were removed"
        )
    return Trimmed(logs.files, logs.bytes)


class _OldLogs:
    def __init__(self, client: Any, before: datetime) -> None:
        self._client = client
        self._before = before
        self.files = self.bytes = self.refused = 0
        self.first_refused = ""

    def remove(self, bucket: str, prefix: str) -> None:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": _AT_ONCE}):
            old = {
                found["Key"]: found["Size"]
                for found in page.get("Contents", ())
                # Some servers show folders as well.
                if found["LastModified"] < self._before and not found["Key"].endswith("/")
            }
            if old:
                self._delete(bucket, old)

    def _delete(self, bucket: str, sizes: dict[str, int]) -> None:
        objects = [{"Key": key} for key in sizes]
        answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", ()):
            del sizes[error["Key"]]
            if not self.refused:
                self.first_refused = f"{error['Key']} ({error['Code']}){_hint_of(error['Code'])}"
            self.refused += 1
        self.files += len(sizes)
        self.bytes += sum(sizes.values())


def _hint(error: Exception) -> str:
    if isinstance(error, ClientError):
        return _hint_of(error.response["Error"]["Code"])
    if isinstance(error, ConnectionError | HTTPClientError):
        return f": is the server up, and the address in {_CONNECTION} right?"
    return f": check {_CONNECTION}"


def _hint_of(code: str) -> str:
    return f": {_HINTS[code]}" if code in _HINTS else ""
