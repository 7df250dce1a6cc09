"""Old task logs on the stack's S3. S3 sets the times itself, so the limit lies between two uploads of the test."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config

from include.errors import HousekeepingError
from include.housekeeping.logs import RemovedLogs
from include.housekeeping.remote_logs import trim_remote_logs
from tests.support.waiting import wait_until

BUCKET = "staging"
TEXT = b"what a task said\n"


class Bucket:
    """The stack's bucket. `name` is the prefix of the test's objects, and the DAG id of logs without a folder."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.name = uuid.uuid4().hex[:12]

    def put(self, *keys: str) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda key: self.client.put_object(Bucket=BUCKET, Key=key, Body=TEXT), keys))

    def written(self, *prefixes: str) -> dict[str, datetime]:
        pages = self.client.get_paginator("list_objects_v2")
        return {
            found["Key"]: found["LastModified"]
            for prefix in prefixes or (self.name, f"dag_id={self.name}")
            for page in pages.paginate(Bucket=BUCKET, Prefix=prefix)
            for found in page.get("Contents", ())
        }

    def put_later(self, *keys: str) -> datetime:
        """Upload these after all others, and return when the first was written. S3 may count in seconds."""
        latest = max(self.written().values())

        def later() -> datetime | None:
            self.put(*keys)
            first = min(at for key, at in self.written().items() if key in keys)
            return first if first > latest else None

        found: datetime = wait_until(later, "S3 returns no later time", 30)
        return found

    def clean(self) -> None:
        for key in self.written():
            self.client.delete_object(Bucket=BUCKET, Key=key)


@pytest.fixture
def bucket(service_environment: dict[str, str]) -> Iterator[Bucket]:
    made = Bucket(boto3.client("s3"))
    yield made
    made.clean()


@pytest.mark.parametrize("folder", ["{name}/logs", "{name}/logs/", ""])
def test_only_old_logs_are_removed(bucket: Bucket, folder: str) -> None:
    folder = folder.format(name=bucket.name)
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    run = f"{prefix}dag_id={bucket.name}/run_id="
    bucket.put(
        f"{run}manual__2026-01-01T08:00:00+00:00/task_id=a/attempt=1.log",
        f"{run}a run & more, 100%/task_id=ü/attempt=1.log.trigger.3.log",
        f"{run}cleared/task_id=a/attempt=1.log",
        *([f"{prefix}executor_callbacks/a/old/1"] if prefix else []),
    )
    others = {
        f"{bucket.name}/{name}" for name in ("precious", "logs/precious", "logs/a/dag_id=a/1.log", "logs2/dag_id=a/1")
    }
    bucket.put(*others, f"{run}again/task_id=a/attempt=1.log")
    young = {f"{run}cleared/task_id=a/attempt=2.log", f"{run}again/task_id=a/attempt=1.log"}
    before = bucket.put_later(*young)

    url = f"s3://{BUCKET}/{folder}" if folder else f"s3://{BUCKET}"
    files = 4 if prefix else 3
    assert trim_remote_logs(bucket.client, url, before) == RemovedLogs(files, files * len(TEXT))
    assert set(bucket.written()) == young | others
    assert trim_remote_logs(bucket.client, url, before) == RemovedLogs(0, 0)


def test_more_logs_than_one_request_holds_are_removed(bucket: Bucket) -> None:
    logs = [f"{bucket.name}/dag_id=a/run_id={number:04}/attempt=1.log" for number in range(2_500)]
    bucket.put(*logs)
    young = set(logs[::200])
    before = bucket.put_later(*young)
    assert trim_remote_logs(bucket.client, f"s3://{BUCKET}/{bucket.name}", before).files == 2_500 - len(young)
    assert set(bucket.written()) == young


@pytest.fixture
def reader(service_environment: dict[str, str], bucket: Bucket) -> Iterator[Any]:
    """A client of a user who may only list and read."""
    iam: Any = boto3.client("iam", endpoint_url=service_environment["AWS_ENDPOINT_URL_S3"])
    places = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    allowed = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": places}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.create_user(UserName=bucket.name)
    iam.put_user_policy(UserName=bucket.name, PolicyName="reads", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=bucket.name)["AccessKey"]
    yield boto3.client(
        "s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )  # fmt: skip
    iam.delete_access_key(UserName=bucket.name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName=bucket.name, PolicyName="reads")
    iam.delete_user(UserName=bucket.name)


def test_missing_right_to_delete_is_named(bucket: Bucket, reader: Any) -> None:
    old = f"{bucket.name}/dag_id=a/run_id=1/attempt=1.log"
    bucket.put(old)
    before = bucket.put_later(f"{bucket.name}/dag_id=a/run_id=2/attempt=1.log")
    with pytest.raises(HousekeepingError) as error:
        trim_remote_logs(reader, f"s3://{BUCKET}/{bucket.name}", before)
    assert f"cannot remove 1 old logs of s3://{BUCKET}/{bucket.name}, 0 others were removed" in str(error.value)
    assert (
        f"the first is {old} (AccessDenied): the user of the connection that [logging] remote_log_conn_id names lacks"
        in str(error.value)
    )
    assert old in bucket.written()


REJECTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "wrong key": ({"aws_secret_access_key": "wr0ng"}, BUCKET, "check the keys in the connection that"),
    "no bucket": ({}, "no-such-bucket", "the bucket does not exist: create it"),
    "no server": (
        {"endpoint_url": "http://127.0.0.1:1", "config": Config(retries={"total_max_attempts": 1})},
        BUCKET, "check that the server is up and that the address in the connection that",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REJECTED)
def test_error_has_the_remedy(bucket: Bucket, fault: str, service_environment: dict[str, str]) -> None:
    changes, name, remedy = REJECTED[fault]
    if "aws_secret_access_key" in changes:
        changes = {"aws_access_key_id": service_environment["AWS_ACCESS_KEY_ID"], **changes}
    now = datetime.now().astimezone()
    with pytest.raises(HousekeepingError) as error:
        trim_remote_logs(boto3.client("s3", **changes), f"s3://{name}/{bucket.name}", now)
    assert f"cannot remove old logs of s3://{name}/{bucket.name}, 0 were removed: " in str(error.value)
    assert remedy in str(error.value)
    assert "wr0ng" not in str(error.value)
