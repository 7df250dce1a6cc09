"""The task `record_predictions`, with Airflow's connections."""

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
def pipeline(
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


class NewRun(TaskInstance):
    """The task instance of a new run."""

    dag_id, try_number = "record_predictions", 1
    number = 0

    def __init__(self) -> None:
        super().__init__()
        NewRun.number += 1
        self.run_id = f"scheduled__{NewRun.number}"


def run(ti: NewRun | None = None) -> dict[str, Any]:
    ti = ti or NewRun()
    RecordPredictionsOperator(task_id="record_predictions").execute({"ti": ti})  # type: ignore[arg-type]
    return ti.pushed


def produce(pipeline: Scoring, *values: bytes) -> None:
    kafka_log.send(str(pipeline.kafka["bootstrap.servers"]), pipeline.settings.output_topic, list(values))


def score(pipeline: Scoring, count: int) -> None:
    messages = [one.message for one in payments(*(number + 0.5 for number in range(count)))]
    kafka_log.send(str(pipeline.kafka["bootstrap.servers"]), pipeline.settings.input_topic, messages)
    pipeline.run()


def test_messages_are_recorded_once_and_counted(pipeline: Scoring, ledger: LedgerConnection):
    first = run()["counts"]
    assert (first["rows"], first["dead_letters"]) == (2, 1)
    assert run() == {"alarms": [], "counts": {"messages": 0, "rows": 0, "dead_letters": 0}}
    assert query(ledger, "SELECT count(*) FROM ledger.predictions") == [(2,)]


def test_wrong_password_fails_the_task_without_retries_and_is_not_shown(
    pipeline: Scoring, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", f"postgres://{ledger.user}:wr0ng@{ledger}")
    with pytest.raises(AirflowFailException, match=r"LedgerAccessError.*the connection ledger_db") as error:
        run()
    assert "wr0ng" not in str(error.value)


def test_missing_ledger_connection_is_named(pipeline: Scoring, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOGGER_SQL_URI")
    with pytest.raises(AirflowFailException, match=r"ledger_db does not exist: set it, .*LOGGER_SQL_URI"):
        run()


FOREIGN = [b"no prediction"] * 11


def test_many_output_dead_letters_raise_an_alarm_and_few_end_it(pipeline: Scoring):
    topics = pipeline.settings.output_topic, pipeline.settings.output_dead_letter_topic
    produce(pipeline, *FOREIGN)
    assert run()["alarms"] == [
        {
            "kind": "many dead letters of the output topic",
            "sentence": f"12 of 14 messages of {topics[0]} became dead letters (86%), at least "
            f"FRAUD_DEAD_LETTER_SHARE=0.2: no_headers 12. They are on {topics[1]}.",
            "cause": "no_headers",
        }
    ]
    assert run()["alarms"] == []
    score(pipeline, 8)
    produce(pipeline, b"no prediction")
    (over,) = run()["alarms"]
    assert over["cause"] == ""
    assert over["sentence"].startswith(f"1 of 9 messages of {topics[0]} became dead letters (11%), less than")


def test_few_dead_letters_per_run_add_up_to_an_alarm(pipeline: Scoring):
    assert run()["alarms"] == []
    for _ in range(2):
        produce(pipeline, *FOREIGN[:4])
        assert run()["alarms"] == []
    produce(pipeline, *FOREIGN[:1])
    (found,) = run()["alarms"]
    assert found["sentence"].startswith("10 of 12 messages of ")
    assert (
        ", read in the last 4 tries of record_predictions with dead letters, became dead letters (83%)"
        in found["sentence"]
    )


def test_dead_letters_of_a_failed_try_raise_an_alarm(pipeline: Scoring):
    """No later try reads these messages again."""
    run()
    score(pipeline, 2)
    group = Group(
        str(pipeline.kafka["bootstrap.servers"]), pipeline.settings.ledger_group, pipeline.settings.output_topic
    )
    group.expire(group.ends())
    produce(pipeline, *FOREIGN)
    ti = NewRun()
    with pytest.raises(AirflowFailException, match="LedgerGapError"):
        run(ti)
    (found,) = ti.pushed["alarms"]
    assert found["cause"] == "no_headers"


def test_dead_letters_of_an_earlier_try_are_counted_with_its_messages(
    pipeline: Scoring, monkeypatch: pytest.MonkeyPatch
):
    run()
    score(pipeline, 90)
    produce(pipeline, *FOREIGN)

    def die(*words: object) -> int:
        raise LedgerError("the ledger is away")

    ti = NewRun()
    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(LedgerError):
            run(ti)
    assert ti.pushed["alarms"] == []
    (few,) = run()["alarms"]
    assert few["sentence"].startswith("11 of 101 messages of ")
    assert few["cause"] == ""
