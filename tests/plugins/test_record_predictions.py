"""The task `record_predictions`, with the connections as Airflow has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from fraud_scoring.operators.record_operators import RecordPredictionsOperator
from include.errors import LedgerError
from include.ledger.connection import LedgerConnection
from tests.plugins.test_record_batches import TaskInstance
from tests.support import kafka_log
from tests.support.group import Group
from tests.support.ledger import query
from tests.support.payments import payments
from tests.support.scoring import Scoring


@pytest.fixture
def here(
    scoring: Callable[..., Scoring], ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Scoring:
    made = scoring()
    monkeypatch.setenv("FRAUD_STAGING_URL", str(tmp_path / "staging"))
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": made.kafka}))
    monkeypatch.setenv("LOGGER_SQL_URI", f"postgresql://{ledger.user}:{ledger.password}@{ledger}")
    for name in ("input_topic", "output_topic", "output_dead_letter_topic", "ledger_group"):
        monkeypatch.setenv(f"FRAUD_{name.upper()}", getattr(made.settings, name))
    servers = str(made.kafka["bootstrap.servers"])
    kafka_log.send(servers, made.settings.input_topic, [one.message for one in payments(1.0, 2.0)])
    made.run()
    kafka_log.send(servers, made.settings.output_topic, [b"no prediction"])
    return made


class Try(TaskInstance):
    """Each is a run of its own."""

    dag_id, try_number = "record_predictions", 1
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Try.number += 1
        self.run_id = f"scheduled__{Try.number}"


def run(ti: Try | None = None) -> dict[str, Any]:
    ti = ti or Try()
    RecordPredictionsOperator(task_id="record_predictions").execute({"ti": ti})  # type: ignore[arg-type]
    return ti.pushed


def produce(here: Scoring, *values: bytes) -> None:
    kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.output_topic, list(values))


def score(here: Scoring, count: int) -> None:
    messages = [one.message for one in payments(*(number + 0.5 for number in range(count)))]
    kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.input_topic, messages)
    here.run()


def test_it_records_once_and_tells_how_much(here: Scoring, ledger: LedgerConnection):
    first = run()["counts"]
    assert (first["rows"], first["dead_letters"]) == (2, 1)
    assert run() == {"alarms": [], "counts": {"messages": 0, "rows": 0, "dead_letters": 0}}
    assert query(ledger, "SELECT count(*) FROM ledger.predictions") == [(2,)]


def test_a_wrong_password_fails_it_for_good_and_is_not_shown(
    here: Scoring, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", f"postgres://{ledger.user}:wr0ng@{ledger}")
    with pytest.raises(AirflowFailException, match=r"LedgerAccessError.*the connection ledger_db") as told:
        run()
    assert "wr0ng" not in str(told.value)


def test_without_a_ledger_it_says_what_to_set(here: Scoring, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOGGER_SQL_URI")
    with pytest.raises(AirflowFailException, match=r"ledger_db does not exist: set it, .*LOGGER_SQL_URI"):
        run()


FOREIGN = [b"no prediction"] * 11


def test_many_dead_letters_of_the_output_topic_are_an_alarm_that_ends_with_a_run_of_few(here: Scoring):
    topics = here.settings.output_topic, here.settings.output_dead_letter_topic
    produce(here, *FOREIGN)
    assert run()["alarms"] == [
        {
            "kind": "many dead letters of the output topic",
            "sentence": f"12 of 14 messages of {topics[0]} became dead letters (86%), FRAUD_DEAD_LETTER_SHARE=0.2 or "
            f"more: no_headers 12. They are on {topics[1]}.",
            "cause": "no_headers",
        }
    ]
    assert run()["alarms"] == []
    score(here, 8)
    produce(here, b"no prediction")
    (over,) = run()["alarms"]
    assert over["cause"] == ""
    assert over["sentence"].startswith(f"1 of 9 messages of {topics[0]} became dead letters (11%), less than")


def test_few_dead_letters_a_run_add_up(here: Scoring):
    assert run()["alarms"] == []
    for _ in range(2):
        produce(here, *FOREIGN[:4])
        assert run()["alarms"] == []
    produce(here, *FOREIGN[:1])
    (found,) = run()["alarms"]
    assert found["sentence"].startswith("10 of 12 messages of ")
    assert ", in the last 4 runs with such messages, became dead letters (83%)" in found["sentence"]


def test_dead_letters_of_a_try_that_fails_after_it_sent_them_are_an_alarm(here: Scoring):
    """No later try finds them again."""
    run()
    score(here, 2)
    group = Group(str(here.kafka["bootstrap.servers"]), here.settings.ledger_group, here.settings.output_topic)
    group.expire(group.ends())
    produce(here, *FOREIGN)
    ti = Try()
    with pytest.raises(AirflowFailException, match="LedgerGapError"):
        run(ti)
    (found,) = ti.pushed["alarms"]
    assert found["cause"] == "no_headers"


def test_dead_letters_that_an_earlier_try_left_are_counted_with_the_messages_beside_them(
    here: Scoring, monkeypatch: pytest.MonkeyPatch
):
    run()
    score(here, 90)
    produce(here, *FOREIGN)

    def die(*words: object) -> int:
        raise LedgerError("the ledger is away")

    ti = Try()
    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(LedgerError):
            run(ti)
    assert ti.pushed["alarms"] == []
    (few,) = run()["alarms"]
    assert few["sentence"].startswith("11 of 101 messages of ")
    assert few["cause"] == ""
