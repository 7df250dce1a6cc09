"""Recognizes errors of S3 as Arrow and botocore raise them, and names the remedy of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


class S3Fault(Enum):
    """A kind of error of S3 that has a remedy of its own."""

    WRONG_KEYS = auto()
    NO_RIGHT = auto()
    NO_BUCKET = auto()
    NO_ANSWER = auto()


# In lower case and without underscores: botocore writes NoSuchBucket, Arrow NO_SUCH_BUCKET. The response to a HEAD
# request has no body, so botocore has its HTTP status only.
_FAULTS = {
    "invalidaccesskeyid": S3Fault.WRONG_KEYS,
    "signaturedoesnotmatch": S3Fault.WRONG_KEYS,
    "accessdenied": S3Fault.NO_RIGHT,
    "403": S3Fault.NO_RIGHT,
    "nosuchbucket": S3Fault.NO_BUCKET,
    "networkconnection": S3Fault.NO_ANSWER,
}


@dataclass(frozen=True)
class S3Settings:
    """Where a user corrects an error: the names of what sets the keys, the bucket and the endpoint."""

    keys: str
    bucket: str
    endpoint: str

    @classmethod
    def of_connection(cls, connection: str, bucket: str) -> S3Settings:
        """Return the settings of storage that an Airflow connection gives access to."""
        return cls(connection, bucket, f"the address in {connection}")

    def remedy(self, fault: S3Fault) -> str:
        """Return what to do about an error."""
        return {
            S3Fault.WRONG_KEYS: f"check the keys in {self.keys}",
            S3Fault.NO_RIGHT: f"the user of {self.keys} lacks the right to it: docs/security.md lists the rights",
            S3Fault.NO_BUCKET: f"the bucket does not exist: create it, or set {self.bucket} to another",
            S3Fault.NO_ANSWER: f"check that the server is up and that {self.endpoint} is correct",
        }[fault]

    def with_remedy(self, error: BaseException) -> str:
        """Return the first line of an error, followed by the remedy if its fault is known."""
        fault = find_fault(error)
        return first_line(error) + (f": {self.remedy(fault)}" if fault else "")


def find_fault(error: BaseException) -> S3Fault | None:
    """Return the fault that an error or one of its causes names, or None."""
    return next(filter(None, map(_fault, causes(error))), None)


def fault_of_code(code: str) -> S3Fault | None:
    """Return the fault of an error code in botocore's or in Arrow's spelling, or None."""
    return _FAULTS.get(code.replace("_", "").lower())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text: Arrow and PostgreSQL append details in further lines."""
    return str(error).partition("\n")[0]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and the errors that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fault(error: BaseException) -> S3Fault | None:
    if not type(error).__module__.startswith("botocore."):
        # "When listing objects …: AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: …"
        return fault_of_code(first_line(error).partition("AWS Error ")[2].partition(" ")[0])
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ConnectionError | HTTPClientError):
        return S3Fault.NO_ANSWER
    if not isinstance(error, ClientError):
        return None
    code = error.response["Error"]["Code"]
    return S3Fault.NO_BUCKET if (error.operation_name, code) == ("HeadBucket", "404") else fault_of_code(code)
