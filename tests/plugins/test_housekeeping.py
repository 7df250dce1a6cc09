"""The task `trim_logs` with logs that Airflow's own handler has uploaded to the stack's S3."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO

from fraud_scoring.operators.trim_operators import TrimLogsOperator
from include.errors import HousekeepingError
from include.settings import Settings
from tests.housekeeping.test_logs import aged, log

LOG = "dag_id=a/run_id=manual__2026-01-01T08:00:00+00:00/task_id=x/attempt=1.log"
# With 0 days every log is old.
EVERY_LOG_IS_OLD = Settings().override(log_days=0)


class Remote:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = boto3.client("s3")

    def logs(self) -> list[str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        found = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        return [entry["Key"].removeprefix(f"{prefix}/") for entry in found]


@pytest.fixture
def remote(service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """One log on S3, uploaded by Airflow with its own connection. The environment has no keys."""
    made = Remote(f"s3://staging/{uuid.uuid4().hex[:12]}/logs")
    monkeypatch.setenv("AIRFLOW_CONN_LOGS_S3", service_environment["AIRFLOW_CONN_AWS_DEFAULT"])
    for name in [name for name in os.environ if name.startswith(("AWS_", "AIRFLOW_CONN_AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = {
        "BASE_LOG_FOLDER": str(tmp_path),
        "REMOTE_LOGGING": "True",
        "REMOTE_BASE_LOG_FOLDER": made.url,
        "REMOTE_LOG_CONN_ID": "logs_s3",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__LOGGING__{name}", value)
    log(tmp_path / LOG, 0)
    S3RemoteLogIO.from_config().upload(LOG)
    assert made.logs() == [LOG]
    aged(tmp_path / LOG, 1)
    return made


def trim() -> tuple[str, dict[str, int]]:
    location, counts = TrimLogsOperator(task_id="trim_logs").trim(EVERY_LOG_IS_OLD)
    return location, dict(counts)


def test_old_logs_are_removed_from_disk_and_s3(
    remote: Remote, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The handler has emptied the local file.
    assert trim() == (str(tmp_path), {"files": 1, "bytes": 0, "remote_files": 1, "remote_bytes": 17})
    assert f"{remote.url}: files 1, bytes 17" in capsys.readouterr().out
    assert remote.logs() == []
    assert not (tmp_path / LOG).exists()


@pytest.mark.parametrize(
    ("option", "value"), [("REMOTE_LOGGING", "False"), ("REMOTE_BASE_LOG_FOLDER", "gs://staging/logs")]
)
def test_s3_is_left_alone_if_airflow_does_not_upload_logs_there(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__LOGGING__{option}", value)
    assert trim()[1] == {"files": 1, "bytes": 0}
    assert remote.logs() == [LOG]


def test_local_and_remote_logs_are_trimmed_independently(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_LOGS_S3"])
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LOGS_S3", json.dumps(connection | {"password": "wr0ng"}))
        with pytest.raises(HousekeepingError, match="check the keys in the connection that") as error:
            trim()
    assert "wr0ng" not in str(error.value)
    assert not (tmp_path / LOG).exists()
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(log(tmp_path / "no folder", 1)))
    with pytest.raises(HousekeepingError, match="Not a directory"):
        trim()
    assert remote.logs() == []
