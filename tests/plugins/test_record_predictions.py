"""The task `record_predictions`, with the connections as Airflow has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from fraud_scoring.operators.record import RecordPredictionsOperator
from include.ledger.address import Address
from tests.plugins.test_record_batches import TaskInstance
from tests.support import kafka_log
from tests.support.ledger import query
from tests.support.payments import payments
from tests.support.scoring import Scoring


@pytest.fixture
def here(scoring: Callable[..., Scoring], ledger: Address, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    made = scoring()
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": made.kafka}))
    monkeypatch.setenv("LOGGER_SQL_URI", f"postgresql://{ledger.user}:{ledger.password}@{ledger}")
    for name in ("input_topic", "output_topic", "output_dead_letter_topic", "ledger_group"):
        monkeypatch.setenv(f"FRAUD_{name.upper()}", getattr(made.settings, name))
    servers = str(made.kafka["bootstrap.servers"])
    kafka_log.send(servers, made.settings.input_topic, [one.message for one in payments(1.0, 2.0)])
    made.run()
    kafka_log.send(servers, made.settings.output_topic, [b"no prediction"])
    return made


def run() -> dict[str, Any]:
    ti = TaskInstance()
    RecordPredictionsOperator(task_id="record_predictions").execute({"ti": ti})  # type: ignore[arg-type]
    return ti.pushed


def test_it_records_once_and_tells_how_much(here: Scoring, ledger: Address):
    first = run()["counts"]
    assert (first["rows"], first["dead_letters"]) == (2, 1)
    assert run() == {"counts": {"messages": 0, "rows": 0, "dead_letters": 0}}
    assert query(ledger, "SELECT count(*) FROM ledger.predictions") == [(2,)]


def test_a_wrong_password_fails_it_for_good_and_is_not_shown(
    here: Scoring, ledger: Address, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", f"postgres://{ledger.user}:wr0ng@{ledger}")
    with pytest.raises(AirflowFailException, match=r"LedgerAccessError.*the connection ledger_db") as told:
        run()
    assert "wr0ng" not in str(told.value)


def test_without_a_ledger_it_says_what_to_set(here: Scoring, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOGGER_SQL_URI")
    with pytest.raises(AirflowFailException, match=r"ledger_db does not exist: set it, .*LOGGER_SQL_URI"):
        run()
