"""Remove old task logs from S3.

A lifecycle rule of the bucket is not used instead: to set one, workers would need a right with which they could expire
everything in the bucket, and SeaweedFS applies rules only if its admin server runs.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from include.errors import HousekeepingError
from include.housekeeping.logs import RemovedLogs
from include.storage.s3_errors import S3Settings, fault_of_code

# Airflow 3.3 uploads logs below these prefixes. Other objects of the bucket stay.
_PREFIXES = ("dag_id=", "executor_callbacks/")
_S3 = S3Settings.of_connection(
    "the connection that [logging] remote_log_conn_id names", "[logging] remote_base_log_folder"
)


def trim_remote_logs(client: Any, folder: str, before: datetime) -> RemovedLogs:
    """Remove task logs that were last written before that time. `client` is boto3's, `folder` is s3://bucket/prefix.

    Raise HousekeepingError if S3 fails; if it rejects only some of the logs, once all others are removed.
    """
    files = size = 0
    rejected: list[Any] = []
    try:
        for bucket, old in _old_objects(client, folder, before):
            objects = [{"Key": key} for key in old]
            response = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for error in (errors := response.get("Errors", [])):
                del old[error["Key"]]
            rejected += errors
            files += len(old)
            size += sum(old.values())
    except (BotoCoreError, ClientError) as error:
        raise HousekeepingError(
            f"cannot remove old logs of {folder}, {files} were removed: {_S3.with_remedy(error)}"
        ) from error
    if rejected:
        key, code = rejected[0]["Key"], rejected[0]["Code"]
        remedy = f": {_S3.remedy(fault)}" if (fault := fault_of_code(code)) else ""
        raise HousekeepingError(
            f"cannot remove {len(rejected)} old logs of {folder}, {files} others were removed; the first is {key} "
            f"({code}){remedy}"
        )
    return RemovedLogs(files, size)


def _old_objects(client: Any, folder: str, before: datetime) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the bucket with keys and sizes of old logs, at most 1,000 at a time: S3 deletes no more in a request."""
    for prefix in _PREFIXES:
        # Airflow's handler builds a key in the same way.
        url = urlsplit(posixpath.join(folder, prefix))
        pages = client.get_paginator("list_objects_v2")
        for page in pages.paginate(
            Bucket=url.netloc, Prefix=url.path.lstrip("/"), PaginationConfig={"PageSize": 1_000}
        ):
            old = {
                entry["Key"]: entry["Size"]
                for entry in page.get("Contents", ())
                # Some servers list folders too.
                if entry["LastModified"] < before and not entry["Key"].endswith("/")
            }
            if old:
                yield url.netloc, old
