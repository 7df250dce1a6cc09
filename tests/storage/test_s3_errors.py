from __future__ import annotations

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from include.storage.s3_errors import S3Fault, S3Settings, find_fault

SETTINGS = S3Settings.of_connection("the connection aws_default", "FRAUD_STAGING_URL")


def of_arrow(code: str) -> OSError:
    return OSError(f"When listing objects under key 'a' in bucket 'b': AWS Error {code} during ListObjectsV2: no\nmore")


def of_botocore(code: str, operation: str = "PutObject") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


def wrapped(error: Exception) -> Exception:
    outer = S3UploadFailedError("failed")
    outer.__context__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (of_arrow("SIGNATURE_DOES_NOT_MATCH"), S3Fault.WRONG_KEYS),
        (of_arrow("INVALID_ACCESS_KEY_ID"), S3Fault.WRONG_KEYS),
        (of_arrow("ACCESS_DENIED"), S3Fault.NO_RIGHT),
        (of_arrow("NO_SUCH_BUCKET"), S3Fault.NO_BUCKET),
        (of_arrow("NETWORK_CONNECTION"), S3Fault.NO_ANSWER),
        (of_arrow("UNKNOWN (HTTP status 418)"), None),
        (of_botocore("SignatureDoesNotMatch"), S3Fault.WRONG_KEYS),
        (of_botocore("InvalidAccessKeyId"), S3Fault.WRONG_KEYS),
        (of_botocore("AccessDenied"), S3Fault.NO_RIGHT),
        (of_botocore("403", "HeadObject"), S3Fault.NO_RIGHT),
        (of_botocore("NoSuchBucket"), S3Fault.NO_BUCKET),
        (of_botocore("404", "HeadBucket"), S3Fault.NO_BUCKET),
        (of_botocore("404", "HeadObject"), None),
        (EndpointConnectionError(endpoint_url="http://s3"), S3Fault.NO_ANSWER),
        (wrapped(of_botocore("AccessDenied")), S3Fault.NO_RIGHT),
        (NoCredentialsError(), None),
        (OSError("No space left on device"), None),
    ],
)
def test_errors_of_arrow_and_botocore_map_to_the_same_faults(error: Exception, fault: S3Fault | None):
    assert find_fault(error) is fault


def test_remedy_follows_the_first_line_of_the_error():
    text = SETTINGS.with_remedy(of_arrow("NO_SUCH_BUCKET"))
    assert text.endswith("no: the bucket does not exist: create it, or set FRAUD_STAGING_URL to another")
    assert SETTINGS.with_remedy(OSError("disk\nmore")) == "disk"
