"""The task `record_batches`, with Airflow's connections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from fraud_scoring.operators.record_operators import RecordBatchesOperator
from include.errors import LedgerError
from include.ledger.connection import LedgerConnection
from include.storage.staging import Storage
from tests.ledger.test_recorded_batches import record, write_record
from tests.support.ledger import query


class TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def staging(ledger: LedgerConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    connection = {
        "conn_type": "postgres", "host": ledger.host, "port": ledger.port, "schema": ledger.database,
        "login": ledger.user, "password": ledger.password,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(connection))
    monkeypatch.setenv("FRAUD_STAGING_URL", str(tmp_path / "staging"))
    return Storage.open(str(tmp_path / "staging"))


def run() -> dict[str, Any]:
    ti = TaskInstance()
    RecordBatchesOperator(task_id="record_batches").execute({"ti": ti})  # type: ignore[arg-type]
    return ti.pushed


def test_records_are_taken_over_once_and_counted(staging: Storage, ledger: LedgerConnection):
    write_record(staging, record())
    assert run() == {"counts": {"batches": 1, "files": 1}}
    assert query(ledger, "SELECT count(*) FROM ledger.batches") == [(1,)]
    assert run() == {"counts": {"batches": 0, "files": 0}}


def test_damaged_record_fails_the_task_with_retries(staging: Storage):
    staging.write(write_record(staging, record()), b"[]")
    with pytest.raises(LedgerError, match="1 of the batches' records cannot be read"):
        run()


def test_tables_of_another_version_fail_the_task_without_retries(staging: Storage, ledger: LedgerConnection):
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '9999'")
    with pytest.raises(AirflowFailException, match="LedgerSchemaError"):
        run()
