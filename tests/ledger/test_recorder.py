"""Recording of the output topic in PostgreSQL, with a real broker and a real database."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.batch.dead_letter_counts import DeadLetterCounts
from include.errors import GroupInUseError, LedgerAccessError, LedgerError, LedgerGapError, LedgerSchemaError
from include.ledger import recorder as recording
from include.ledger.connection import LedgerConnection
from include.ledger.prediction_row import PredictionReader
from include.ledger.predictions import Predictions
from include.ledger.recorder import RecordingResult, record
from include.payments.refusal import Refusal
from tests.ledger.test_prediction_row import HEADERS, PAYMENT
from tests.support import kafka_log
from tests.support.group import Group
from tests.support.ledger import query, sources
from tests.support.live_stack import LiveStack
from tests.support.payments import payment
from tests.support.scoring import Scoring
from tests.support.topics import Arrived, Reader, send

Make = Callable[..., Scoring]


def scored(scoring: Scoring, count: int) -> None:
    send(scoring.kafka, scoring.settings.input_topic, [(one.key, one.message) for one in new_payments(count)], spread=1)
    scoring.run()


def new_payments(count: int) -> list[Any]:
    return [payment(number + 0.5) for number in range(count)]


def recorded(scoring: Scoring, ledger: LedgerConnection) -> RecordingResult:
    return record(scoring.cluster, scoring.settings, ledger)


def recorded_again(scoring: Scoring, ledger: LedgerConnection) -> RecordingResult:
    """Record the topic again from its first message."""
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 0")
    return recorded(scoring, ledger)


def output(scoring: Scoring) -> list[Arrived]:
    reader = Reader(str(scoring.kafka["bootstrap.servers"]), scoring.settings.output_topic)
    reader._starts = dict.fromkeys(reader._starts, 0)
    return reader.arrived()


def by_source(arrived: list[Arrived]) -> list[tuple[str, bool]]:
    return sorted(("/".join(one.place), bool(one.payment["is_fraud"])) for one in arrived if "row" in one.headers)


def produce(scoring: Scoring, value: bytes | None, partition: int = 0, **headers: str) -> None:
    producer = Producer(scoring.kafka)
    given = [(name, text.encode()) for name, text in headers.items()]
    producer.produce(scoring.settings.output_topic, value, b"a key", partition, headers=given)
    assert producer.flush(30) == 0


def dead_letters(scoring: Scoring) -> list[Arrived]:
    reader = Reader(str(scoring.kafka["bootstrap.servers"]), scoring.settings.output_dead_letter_topic)
    reader._starts = dict.fromkeys(reader._starts, 0)
    return reader.arrived()


def group(scoring: Scoring) -> Group:
    servers, names = str(scoring.kafka["bootstrap.servers"]), scoring.settings
    return Group(servers, names.ledger_group, names.output_topic)


def test_each_prediction_is_recorded_once_as_published(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring(2, outputs=3)
    scored(pipeline, 50)
    first = recorded(pipeline, ledger)
    assert first.rows == 50
    assert sources(ledger) == by_source(output(pipeline))
    (row,) = query(
        ledger,
        "SELECT trans_num, cc_num, amt::text, paid_at::text, prediction, fraud_probability, model_run_id, model_name, "
        "scored_at::text, payment::text FROM ledger.predictions ORDER BY amt LIMIT 1",
    )
    published = next(one for one in output(pipeline) if one.payment["amt"] == 0.5)
    values = published.payment
    assert row[:5] == (values["trans_num"], str(values["cc_num"]), "0.5", "2026-03-04 15:56:25+00", True)
    assert row[5:9] == (0.9, "f" * 32, None, "2026-01-01 00:00:00+00")
    assert f"[{row[9]}]".encode() == published.value
    assert recorded(pipeline, ledger).messages == 0
    assert group(pipeline).committed() == group(pipeline).ends()


def test_recording_again_changes_nothing(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    scored(pipeline, 5)
    recorded(pipeline, ledger)
    before = query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1")
    again = recorded_again(pipeline, ledger)
    assert (again.messages, again.rows) == (5, 0)
    assert query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1") == before
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_repeated_message_is_one_row(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring(outputs=1)
    scored(pipeline, 3)
    repeated = output(pipeline)[1]
    produce(pipeline, repeated.value, **repeated.headers)
    produce(pipeline, repeated.value, **repeated.headers)
    assert recorded(pipeline, ledger).messages == 5
    assert len(sources(ledger)) == 3
    assert recorded_again(pipeline, ledger).rows == 0
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_newer_prediction_replaces_its_row_which_is_kept(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    earlier = {**HEADERS, "scored_at": "2026-02-01T00:00:00+00:00", "model_run_id": "b" * 32}
    later = {**HEADERS, "scored_at": "2026-03-01T00:00:00+00:00", "model_run_id": "c" * 32}
    for headers in (later, earlier):
        produce(pipeline, json.dumps([PAYMENT]).encode(), **headers)
        recorded(pipeline, ledger)
    assert query(ledger, "SELECT model_run_id FROM ledger.predictions") == [("c" * 32,)]
    produce(pipeline, json.dumps([PAYMENT]).encode(), **{**later, "scored_at": "2026-03-02T00:00:00+00:00"})
    recorded(pipeline, ledger)
    kept = "SELECT model_run_id, scored_at::text, altered FROM ledger.replaced_predictions ORDER BY scored_at"
    both = [("b" * 32, "2026-02-01 00:00:00+00", False), ("c" * 32, "2026-03-01 00:00:00+00", False)]
    assert query(ledger, kept) == both
    assert recorded_again(pipeline, ledger).rows == 0
    assert query(ledger, kept) == both


def test_row_altered_before_its_replacement_is_restored(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    later = {**HEADERS, "scored_at": "2026-03-01T00:00:00+00:00", "batch_id": "later"}
    produce(pipeline, json.dumps([PAYMENT]).encode(), **HEADERS)
    recorded(pipeline, ledger)
    query(ledger, "UPDATE ledger.predictions SET batch_id = 'forged'")
    produce(pipeline, json.dumps([PAYMENT]).encode(), **later)
    recorded(pipeline, ledger)
    for rows in (1, 0):
        assert recorded_again(pipeline, ledger).rows == rows
        published = query(ledger, "SELECT batch_id FROM ledger.published_predictions ORDER BY replaced_at NULLS LAST")
        assert {HEADERS["batch_id"], "later"} <= {batch for (batch,) in published}


@pytest.mark.parametrize("newer", [0, 1])
def test_two_payments_at_one_source_are_kept_in_any_order(scoring: Make, ledger: LedgerConnection, newer: int):
    """After the topic was recreated, the older prediction may be on a partition that is read later."""
    pipeline = scoring(outputs=2)
    for partition, trans_num in enumerate(("first", "second")):
        at = f"2026-0{3 if partition == newer else 2}-01T00:00:00+00:00"
        value = json.dumps([PAYMENT | {"trans_num": trans_num}]).encode()
        produce(pipeline, value, partition, **{**HEADERS, "scored_at": at})
    assert recorded(pipeline, ledger).rows == 2
    current = query(ledger, "SELECT trans_num FROM ledger.predictions")
    assert current == [(("first", "second")[newer],)]
    known = "SELECT trans_num, replaced_at IS NULL FROM ledger.published_predictions ORDER BY 1"
    both = [("first", newer == 0), ("second", newer == 1)]
    assert query(ledger, known) == both
    assert recorded_again(pipeline, ledger).rows == 0
    assert query(ledger, known) == both


def test_altered_and_deleted_rows_are_restored(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    scored(pipeline, 3)
    recorded(pipeline, ledger)
    query(ledger, "UPDATE ledger.predictions SET amt = 1 WHERE source_offset = 1")
    query(ledger, "DELETE FROM ledger.predictions WHERE source_offset = 2")
    assert recorded_again(pipeline, ledger).rows == 2
    assert query(ledger, "SELECT amt::text FROM ledger.predictions ORDER BY source_offset") == [
        ("0.5",), ("1.5",), ("2.5",),
    ]  # fmt: skip


def test_view_payments_shows_newest_of_repeated_and_skips_missing_trans_num(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    numbers = ["same", "same", None, None]
    kept = [payment(10.5 + number, trans_num=name) for number, name in enumerate(numbers)]
    send(pipeline.kafka, pipeline.settings.input_topic, [(one.key, one.message) for one in kept])
    pipeline.run()
    recorded(pipeline, ledger)
    assert len(sources(ledger)) == 4
    assert query(ledger, "SELECT trans_num, amt::text, fraud_confirmed FROM ledger.payments") == [
        ("same", "11.5", None)
    ]


def test_other_message_becomes_a_dead_letter_once(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring(outputs=1)
    scored(pipeline, 2)
    produce(pipeline, b"hello", colour="red")
    produce(pipeline, None)
    scored(pipeline, 1)
    assert recorded(pipeline, ledger).dead_letters == 2
    assert len(sources(ledger)) == 3
    topic = pipeline.settings.output_topic
    found = [(one.key, one.value, one.headers) for one in dead_letters(pipeline)]
    places = [int(one["source"].rpartition("/")[2]) for _, _, one in found]
    assert [(key, value) for key, value, _ in found] == [(b"a key", b"hello"), (b"a key", None)]
    assert found[0][2] == {
        "colour": "red",
        "reason": "bad_source: its header source is missing, or is not topic/partition/offset",
        "source": f"{topic}/0/{places[0]}",
    }
    assert found[1][2]["reason"].startswith("no_headers: ")
    assert recorded(pipeline, ledger).dead_letters == 0
    assert recorded_again(pipeline, ledger).dead_letters == 0
    assert len(dead_letters(pipeline)) == 2


def test_dead_letters_of_a_died_run_are_sent_by_the_next(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    pipeline = scoring()
    produce(pipeline, b"hello", colour="red")

    def die(*arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(KeyboardInterrupt):
            recorded(pipeline, ledger)
    produce(pipeline, b"hello again", colour="red")
    assert recorded(pipeline, ledger).dead_letters == 2
    assert [one.value for one in dead_letters(pipeline)] == [b"hello", b"hello again"]


def test_recreated_topic_is_recorded_from_its_start(scoring: Make, ledger: LedgerConnection, services: LiveStack):
    pipeline = scoring()
    scored(pipeline, 5)
    recorded(pipeline, ledger)
    topic = pipeline.settings.output_topic
    kafka_log.delete_topics(services.bootstrap_servers, [topic])
    kafka_log.make_topic(services.bootstrap_servers, name=topic)
    scored(pipeline, 2)
    # Six offsets: the marker of the Kafka transaction takes one.
    with pytest.raises(
        LedgerGapError, match="offsets from 6 on of partition 0 of the deleted topic were deleted before"
    ):
        recorded(pipeline, ledger)
    assert len(sources(ledger)) == 7
    assert recorded(pipeline, ledger).messages == 0


def test_expired_predictions_are_reported_and_others_recorded(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    scored(pipeline, 3)
    recorded(pipeline, ledger)
    scored(pipeline, 4)
    group(pipeline).expire({0: 6})
    scored(pipeline, 2)
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 6\) of partition 0 were deleted before"):
        recorded(pipeline, ledger)
    recorded_before = len(sources(ledger))
    assert recorded(pipeline, ledger).messages == 0
    assert recorded_before == len(sources(ledger)) == 3 + 2 + 2


def test_gap_up_to_the_end_is_reported_once(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    scored(pipeline, 3)
    recorded(pipeline, ledger)
    scored(pipeline, 2)
    group(pipeline).expire(group(pipeline).ends())
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 7\) of partition 0 were deleted before"):
        recorded(pipeline, ledger)
    assert recorded(pipeline, ledger).messages == 0


def test_gap_found_by_a_died_run_is_reported_by_the_next(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    pipeline = scoring()
    scored(pipeline, 3)
    recorded(pipeline, ledger)
    scored(pipeline, 2)
    group(pipeline).expire(group(pipeline).ends())

    def die(*arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(KeyboardInterrupt):
            recorded(pipeline, ledger)
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 7\) of partition 0 were deleted before"):
        recorded(pipeline, ledger)
    assert recorded(pipeline, ledger).messages == 0


def test_added_partitions_are_recorded(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring(outputs=1)
    produce(pipeline, json.dumps([PAYMENT]).encode(), **HEADERS)
    assert recorded(pipeline, ledger).rows == 1
    group(pipeline).add_partitions(3)
    produce(pipeline, json.dumps([PAYMENT]).encode(), 2, **{**HEADERS, "row": "1"})
    assert recorded(pipeline, ledger).rows == 1
    assert len(sources(ledger)) == 2


def test_many_dead_letters_are_sent_in_several_transactions(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.ledger.output_dead_letters._TRANSACTION_BYTES", 3_000)
    pipeline = scoring()
    for number in range(10):
        produce(pipeline, b"no prediction %d" % number, colour="red")
    assert recorded(pipeline, ledger).dead_letters == 10
    assert [one.value for one in dead_letters(pipeline)] == [b"no prediction %d" % number for number in range(10)]
    assert group(pipeline).committed() == group(pipeline).ends()


def test_each_message_is_counted_once_over_all_runs(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.ledger.output_dead_letters._TRANSACTION_BYTES", 3_000)
    pipeline = scoring(outputs=1)
    counted: list[DeadLetterCounts] = []
    for _ in range(2):
        scored(pipeline, 3)
        for _ in range(5):
            produce(pipeline, b"no prediction", colour="red")
        scored(pipeline, 2)
        # After a rewind of the ledger, messages that an earlier run has counted are read again.
        query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 0")
        record(pipeline.cluster, pipeline.settings, ledger, counted.append)
        total = reduce(DeadLetterCounts.plus, counted)
        assert (total.messages, total.dead) == (len(output(pipeline)), len(dead_letters(pipeline)))
        assert total.reasons == {"bad_source": total.dead}


def test_error_does_not_quote_the_row(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch):
    pipeline = scoring()
    produce(pipeline, json.dumps([PAYMENT]).encode(), **HEADERS)
    monkeypatch.setattr("include.ledger.prediction_row.amount_cell", lambda value: b"no number")
    with pytest.raises(LedgerError) as raised:
        recorded(pipeline, ledger)
    text = "".join(traceback.format_exception(raised.value))
    assert "invalid input syntax for type numeric" in text
    assert PAYMENT["trans_num"] not in text
    assert str(PAYMENT["cc_num"]) not in text


def test_lock_of_another_client_fails_the_run(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.ledger.predictions._LOCK_SECONDS", 1)
    pipeline = scoring()
    scored(pipeline, 3)
    with ledger.open("an analyst") as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE ledger.predictions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LedgerError, match="lock timeout"):
            recorded(pipeline, ledger)
    assert recorded(pipeline, ledger).rows == 3


def test_newer_recorder_ends_the_older_one(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch):
    pipeline = scoring()
    scored(pipeline, 5)
    write = Predictions.write

    def overtaken(predictions: Predictions, *arguments: Any) -> int:
        monkeypatch.setattr(Predictions, "write", write)
        recorded(pipeline, ledger)
        return write(predictions, *arguments)

    monkeypatch.setattr(Predictions, "write", overtaken)
    with pytest.raises(LedgerError):
        recorded(pipeline, ledger)
    assert len(sources(ledger)) == 5
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_small_transactions_record_the_same_rows(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recording, "_HELD_ROWS", 7)
    pipeline = scoring(3, outputs=2)
    scored(pipeline, 60)
    assert recorded(pipeline, ledger).rows == 60
    assert sources(ledger) == by_source(output(pipeline))


def test_unusable_database_error_names_cause_and_remedy(scoring: Make, ledger: LedgerConnection, services: LiveStack):
    pipeline = scoring()
    wrong = LedgerConnection(ledger.host, ledger.database, ledger.port, ledger.user, "wrong")
    with pytest.raises(LedgerAccessError, match="check login, password and database in the connection ledger_db"):
        recorded(pipeline, wrong)
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1:1/.* does not answer"):
        recorded(pipeline, LedgerConnection(ledger.host, ledger.database, 1, ledger.user, "secret"))
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '0000'")
    with pytest.raises(LedgerSchemaError, match=r"version 0000, .* is required: run `fraud ledger migrate`"):
        recorded(pipeline, ledger)
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerSchemaError, match=r"version 9999, .* upgrade this installation"):
        recorded(pipeline, ledger)
    query(ledger, "DROP SCHEMA ledger CASCADE")
    with pytest.raises(LedgerSchemaError, match="no tables yet"):
        recorded(pipeline, ledger)


def test_group_in_use_is_refused(scoring: Make, ledger: LedgerConnection):
    pipeline = scoring()
    with group(pipeline).joined_by_stranger(), pytest.raises(GroupInUseError, match=pipeline.settings.ledger_group):
        recorded(pipeline, ledger)


json_values = st.recursive(
    # Random texts, because PostgreSQL would compress repetitive ones.
    st.sampled_from([random.Random(1).randbytes(size // 2).hex() for size in (900, 1_100, 3_000, 100_000)])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*PAYMENT, "x"]) | st.text(), json_values, max_size=12), st.booleans())
def test_postgresql_accepts_every_row(table: Predictions, payment: dict[str, Any], plain: bool):
    text = json.dumps([{**payment, "is_fraud": 0}], ensure_ascii=plain)
    value = text.encode("utf-8", "surrogatepass")
    row = PredictionReader().row(0, 0, value, [(name, one.encode()) for name, one in HEADERS.items()])
    if isinstance(row, Refusal):
        return
    table.write([row.line], {0: (table.recorded[0].next_offset if table.recorded else 0) + 1})
    # If one member could not be read, the operator ->> would fail for all.
    with table._connection as connection, connection.cursor() as cursor:
        cursor.execute("SELECT payment->>'merchant', payment->>'x' FROM ledger.predictions")


@pytest.fixture
def table(scoring: Make, ledger: LedgerConnection) -> Any:
    from include.kafka.cluster import Topic

    with ledger.open("a test") as connection:
        yield Predictions(connection, Topic("topic", "id", (0,)))
