"""Confirmed payments to S3 by Airflow's hook; run as a module it is `fraud export-confirmed`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fraud_scoring.airflow_connections import AWS, ledger
from include.errors import ExportAccessError, ExportError, FraudError, SettingError
from include.settings import Settings
from include.storage.s3_errors import S3Fault, S3Settings, find_fault

if TYPE_CHECKING:
    from include.reviews.confirmed_export import Exported

# A bucket's name has no colon and no @: with one, there are keys in the address, perhaps with slashes of their own.
_URL = re.compile(r"s3://([\w.-]+)(?:/(\S*))?")
_S3 = S3Settings.of_connection(f"the connection {AWS}", "FRAUD_CONFIRMED_URL")


@dataclass(frozen=True)
class Bucket:
    """`prefix` is empty or ends with a slash."""

    name: str
    prefix: str

    @classmethod
    def of(cls, settings: Settings) -> Bucket:
        """Raises SettingError, which never quotes the address: it may hold keys."""
        url = settings.confirmed_url
        if not url:
            raise SettingError(
                "FRAUD_CONFIRMED_URL is not set: it says where confirmed payments go, for instance s3://bucket/confirmed"
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise SettingError(
                "FRAUD_CONFIRMED_URL cannot be used: give s3://bucket/prefix, without keys, for those of the "
                f"connection {AWS} are taken"
            )
        prefix = (found[2] or "").strip("/")
        return cls(found[1], f"{prefix}/" if prefix else "")

    def put(self, key: str, data: bytes) -> None:
        """One request: readers see all of the object or none."""
        with self._writing(key) as (client, place):
            client.put_object(**place, Body=data)

    def probe(self) -> None:
        """Whether it could be put, leaving nothing: an upload needs the same right, and is given up."""
        from botocore.exceptions import ClientError

        with self._writing("check") as (client, place):
            try:
                # Other S3 servers than Amazon's take an upload to one that is missing.
                client.head_bucket(Bucket=self.name)
            except ClientError as error:
                # Not everybody who may write may see it.
                if error.response["Error"]["Code"] != "403":
                    raise
            begun = client.create_multipart_upload(**place)
            client.abort_multipart_upload(**place, UploadId=begun["UploadId"])

    @contextmanager
    def _writing(self, key: str) -> Iterator[tuple[Any, dict[str, str]]]:
        """Raises ExportError where it cannot be written."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield S3Hook(aws_conn_id=AWS).get_conn(), {"Bucket": self.name, "Key": f"{self.prefix}{key}"}
        except (BotoCoreError, ClientError) as error:
            is_refused = find_fault(error) in (S3Fault.WRONG_KEYS, S3Fault.NO_RIGHT)
            kind = ExportAccessError if is_refused else ExportError
            raise kind(f"cannot write {key} to s3://{self.name}/{self.prefix}: {_S3.with_remedy(error)}") from error


def export_confirmed() -> tuple[str, list[Exported]]:
    """The place, and the files that were stored there."""
    from include.reviews.confirmed_export import export

    settings = Settings.from_environment()
    bucket = Bucket.of(settings)
    return settings.confirmed_url, export(ledger(), bucket)


def main() -> int:
    """Export, report the files, and return the exit code."""
    from include.cli.console import output, write_error
    from include.cli.registration import NOT_GOOD, OK

    try:
        url, files = export_confirmed()
    except FraudError as error:
        write_error(f"fraud export-confirmed: {error}")
        return NOT_GOOD
    out, payments = output(json="--json" in sys.argv[1:]), sum(file.payments for file in files)
    for file in files:
        out.line(f"{file.file}: {file.payments:,} payments")
    if files:
        out.line(f"{payments:,} confirmed payments were exported to {url}")
    else:
        out.line("nothing to export: no verdict is new")
    out.document({"url": url, "files": files, "payments": payments})
    return OK


if __name__ == "__main__":
    sys.exit(main())
