"""Export confirmed payments to S3 through Airflow's hook. As a script it is the command `fraud export-confirmed`."""

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
    from include.reviews.confirmed_export import ExportedFile

# A bucket's name has no colon and no @: a URL with one contains keys, which may contain slashes.
_URL = re.compile(r"s3://([\w.-]+)(?:/(\S*))?")
_S3 = S3Settings.of_connection(f"the connection {AWS}", "FRAUD_CONFIRMED_URL")


@dataclass(frozen=True)
class Bucket:
    """A bucket and the prefix of the files in it, which is empty or ends with a slash."""

    name: str
    prefix: str

    @classmethod
    def from_settings(cls, settings: Settings) -> Bucket:
        """Return the bucket of FRAUD_CONFIRMED_URL.

        Raise SettingError if the setting is missing or invalid. The error does not quote it, because it may hold keys.
        """
        url = settings.confirmed_url
        if not url:
            raise SettingError(
                "FRAUD_CONFIRMED_URL is not set: set it to the folder for confirmed payments, such as s3://bucket/confirmed"
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise SettingError(
                "FRAUD_CONFIRMED_URL is not in the form s3://bucket/prefix: correct it, and put keys into the "
                f"connection {AWS}"
            )
        prefix = (found[2] or "").strip("/")
        return cls(found[1], f"{prefix}/" if prefix else "")

    def put(self, key: str, data: bytes) -> None:
        """Store a file by one request, so that readers see all of it or nothing. Raise ExportError if S3 fails."""
        with self._open_file(key) as (client, file):
            client.put_object(**file, Body=data)

    def probe(self) -> None:
        """Raise ExportError if files cannot be stored: start an upload, which needs the same right, and abort it."""
        from botocore.exceptions import ClientError

        with self._open_file("check") as (client, file):
            try:
                # S3 servers other than Amazon's accept an upload to a missing bucket.
                client.head_bucket(Bucket=self.name)
            except ClientError as error:
                # A user may have the right to write without the right to see the bucket.
                if error.response["Error"]["Code"] != "403":
                    raise
            upload = client.create_multipart_upload(**file)
            client.abort_multipart_upload(**file, UploadId=upload["UploadId"])

    @contextmanager
    def _open_file(self, key: str) -> Iterator[tuple[Any, dict[str, str]]]:
        """Yield a client and the arguments that name the file. Raise ExportError for an error of S3."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield S3Hook(aws_conn_id=AWS).get_conn(), {"Bucket": self.name, "Key": f"{self.prefix}{key}"}
        except (BotoCoreError, ClientError) as error:
            is_rejected = find_fault(error) in (S3Fault.WRONG_KEYS, S3Fault.NO_RIGHT)
            error_class = ExportAccessError if is_rejected else ExportError
            raise error_class(
                f"cannot write {key} to s3://{self.name}/{self.prefix}: {_S3.with_remedy(error)}"
            ) from error


def export_confirmed() -> tuple[str, list[ExportedFile]]:
    """Export new and changed verdicts. Return FRAUD_CONFIRMED_URL and the files."""
    from include.reviews.confirmed_export import export

    settings = Settings.from_environment()
    bucket = Bucket.from_settings(settings)
    return settings.confirmed_url, export(ledger(), bucket)


def main() -> int:
    """Export, print the files, and return the exit code: 1 if the export fails."""
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
