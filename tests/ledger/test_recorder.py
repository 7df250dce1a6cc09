"""The output topic into PostgreSQL, with the real broker and the real database."""

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
from include.ledger.recorder import Recorded, record
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
    send(scoring.kafka, scoring.settings.input_topic, [(one.key, one.message) for one in some(count)], spread=1)
    scoring.run()


def some(count: int) -> list[Any]:
    return [payment(number + 0.5) for number in range(count)]


def recorded(scoring: Scoring, ledger: LedgerConnection) -> Recorded:
    return record(scoring.cluster, scoring.settings, ledger)


def recorded_again(scoring: Scoring, ledger: LedgerConnection) -> Recorded:
    """From the first message on."""
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


def letters(scoring: Scoring) -> list[Arrived]:
    reader = Reader(str(scoring.kafka["bootstrap.servers"]), scoring.settings.output_dead_letter_topic)
    reader._starts = dict.fromkeys(reader._starts, 0)
    return reader.arrived()


def group(scoring: Scoring) -> Group:
    servers, names = str(scoring.kafka["bootstrap.servers"]), scoring.settings
    return Group(servers, names.ledger_group, names.output_topic)


def test_each_prediction_is_recorded_once_as_it_was_published(scoring: Make, ledger: LedgerConnection):
    made = scoring(2, outputs=3)
    scored(made, 50)
    first = recorded(made, ledger)
    assert first.rows == 50
    assert sources(ledger) == by_source(output(made))
    (row,) = query(
        ledger,
        "SELECT trans_num, cc_num, amt::text, paid_at::text, prediction, fraud_probability, model_run_id, model_name, "
        "scored_at::text, payment::text FROM ledger.predictions ORDER BY amt LIMIT 1",
    )
    published = next(one for one in output(made) if one.payment["amt"] == 0.5)
    values = published.payment
    assert row[:5] == (values["trans_num"], str(values["cc_num"]), "0.5", "2026-03-04 15:56:25+00", True)
    assert row[5:9] == (0.9, "f" * 32, None, "2026-01-01 00:00:00+00")
    assert f"[{row[9]}]".encode() == published.value
    assert recorded(made, ledger).messages == 0
    assert group(made).committed() == group(made).ends()


def test_what_it_records_again_changes_nothing(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    scored(made, 5)
    recorded(made, ledger)
    before = query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1")
    again = recorded_again(made, ledger)
    assert (again.messages, again.rows) == (5, 0)
    assert query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1") == before
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_a_message_that_came_twice_is_one_row(scoring: Make, ledger: LedgerConnection):
    made = scoring(outputs=1)
    scored(made, 3)
    twice = output(made)[1]
    produce(made, twice.value, **twice.headers)
    produce(made, twice.value, **twice.headers)
    assert recorded(made, ledger).messages == 5
    assert len(sources(ledger)) == 3
    assert recorded_again(made, ledger).rows == 0
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_what_was_scored_again_replaces_its_row_which_is_kept(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    earlier = {**HEADERS, "scored_at": "2026-02-01T00:00:00+00:00", "model_run_id": "b" * 32}
    later = {**HEADERS, "scored_at": "2026-03-01T00:00:00+00:00", "model_run_id": "c" * 32}
    for headers in (later, earlier):
        produce(made, json.dumps([PAYMENT]).encode(), **headers)
        recorded(made, ledger)
    assert query(ledger, "SELECT model_run_id FROM ledger.predictions") == [("c" * 32,)]
    produce(made, json.dumps([PAYMENT]).encode(), **{**later, "scored_at": "2026-03-02T00:00:00+00:00"})
    recorded(made, ledger)
    kept = "SELECT model_run_id, scored_at::text, altered FROM ledger.replaced_predictions ORDER BY scored_at"
    both = [("b" * 32, "2026-02-01 00:00:00+00", False), ("c" * 32, "2026-03-01 00:00:00+00", False)]
    assert query(ledger, kept) == both
    assert recorded_again(made, ledger).rows == 0
    assert query(ledger, kept) == both


def test_a_row_that_was_altered_before_it_was_replaced_comes_back(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    later = {**HEADERS, "scored_at": "2026-03-01T00:00:00+00:00", "batch_id": "later"}
    produce(made, json.dumps([PAYMENT]).encode(), **HEADERS)
    recorded(made, ledger)
    query(ledger, "UPDATE ledger.predictions SET batch_id = 'forged'")
    produce(made, json.dumps([PAYMENT]).encode(), **later)
    recorded(made, ledger)
    for rows in (1, 0):
        assert recorded_again(made, ledger).rows == rows
        published = query(ledger, "SELECT batch_id FROM ledger.published_predictions ORDER BY replaced_at NULLS LAST")
        assert {HEADERS["batch_id"], "later"} <= {batch for (batch,) in published}


@pytest.mark.parametrize("newer", [0, 1])
def test_other_payments_of_one_place_are_kept_in_whatever_order_they_are_read(
    scoring: Make, ledger: LedgerConnection, newer: int
):
    """Of a topic that was made again: the older one may lie on a partition that is read later."""
    made = scoring(outputs=2)
    for partition, trans_num in enumerate(("first", "second")):
        at = f"2026-0{3 if partition == newer else 2}-01T00:00:00+00:00"
        value = json.dumps([PAYMENT | {"trans_num": trans_num}]).encode()
        produce(made, value, partition, **{**HEADERS, "scored_at": at})
    assert recorded(made, ledger).rows == 2
    stands = query(ledger, "SELECT trans_num FROM ledger.predictions")
    assert stands == [(("first", "second")[newer],)]
    known = "SELECT trans_num, replaced_at IS NULL FROM ledger.published_predictions ORDER BY 1"
    both = [("first", newer == 0), ("second", newer == 1)]
    assert query(ledger, known) == both
    assert recorded_again(made, ledger).rows == 0
    assert query(ledger, known) == both


def test_an_altered_row_is_restored_by_its_message(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    scored(made, 3)
    recorded(made, ledger)
    query(ledger, "UPDATE ledger.predictions SET amt = 1 WHERE source_offset = 1")
    query(ledger, "DELETE FROM ledger.predictions WHERE source_offset = 2")
    assert recorded_again(made, ledger).rows == 2
    assert query(ledger, "SELECT amt::text FROM ledger.predictions ORDER BY source_offset") == [
        ("0.5",), ("1.5",), ("2.5",),
    ]  # fmt: skip


def test_a_trans_num_may_be_missing_or_repeated_and_the_view_shows_the_newest(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    numbers = ["same", "same", None, None]
    kept = [payment(10.5 + number, trans_num=name) for number, name in enumerate(numbers)]
    send(made.kafka, made.settings.input_topic, [(one.key, one.message) for one in kept])
    made.run()
    recorded(made, ledger)
    assert len(sources(ledger)) == 4
    assert query(ledger, "SELECT trans_num, amt::text, fraud_confirmed FROM ledger.payments") == [
        ("same", "11.5", None)
    ]


def test_what_is_no_prediction_becomes_a_dead_letter_once(scoring: Make, ledger: LedgerConnection):
    made = scoring(outputs=1)
    scored(made, 2)
    produce(made, b"hello", colour="red")
    produce(made, None)
    scored(made, 1)
    assert recorded(made, ledger).dead_letters == 2
    assert len(sources(ledger)) == 3
    topic = made.settings.output_topic
    found = [(one.key, one.value, one.headers) for one in letters(made)]
    places = [int(one["source"].rpartition("/")[2]) for _, _, one in found]
    assert [(key, value) for key, value, _ in found] == [(b"a key", b"hello"), (b"a key", None)]
    assert found[0][2] == {
        "colour": "red",
        "reason": "bad_source: its header source is missing, or is not topic/partition/offset",
        "source": f"{topic}/0/{places[0]}",
    }
    assert found[1][2]["reason"].startswith("no_headers: ")
    assert recorded(made, ledger).dead_letters == 0
    assert recorded_again(made, ledger).dead_letters == 0
    assert len(letters(made)) == 2


def test_dead_letters_of_a_run_that_died_before_it_sent_them_are_sent(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    made = scoring()
    produce(made, b"hello", colour="red")

    def die(*words: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(KeyboardInterrupt):
            recorded(made, ledger)
    produce(made, b"hello again", colour="red")
    assert recorded(made, ledger).dead_letters == 2
    assert [one.value for one in letters(made)] == [b"hello", b"hello again"]


def test_a_topic_made_again_is_recorded_from_its_start(scoring: Make, ledger: LedgerConnection, services: LiveStack):
    made = scoring()
    scored(made, 5)
    recorded(made, ledger)
    topic = made.settings.output_topic
    kafka_log.delete_topics(services.bootstrap_servers, [topic])
    kafka_log.make_topic(services.bootstrap_servers, name=topic)
    scored(made, 2)
    # Six offsets: the marker of the kafka transaction takes one.
    with pytest.raises(LedgerGapError, match=r"from offset 6 on in partition 0 of the topic that was deleted\."):
        recorded(made, ledger)
    assert len(sources(ledger)) == 7
    assert recorded(made, ledger).messages == 0


def test_predictions_that_expired_are_told_and_the_rest_is_recorded(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    scored(made, 3)
    recorded(made, ledger)
    scored(made, 4)
    group(made).expire({0: 6})
    scored(made, 2)
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 6\) of partition 0\."):
        recorded(made, ledger)
    recorded_before = len(sources(ledger))
    assert recorded(made, ledger).messages == 0
    assert recorded_before == len(sources(ledger)) == 3 + 2 + 2


def test_a_gap_to_the_end_is_told_once(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    scored(made, 3)
    recorded(made, ledger)
    scored(made, 2)
    group(made).expire(group(made).ends())
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 7\) of partition 0\."):
        recorded(made, ledger)
    assert recorded(made, ledger).messages == 0


def test_a_gap_is_told_by_the_next_run_where_the_first_one_dies(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    made = scoring()
    scored(made, 3)
    recorded(made, ledger)
    scored(made, 2)
    group(made).expire(group(made).ends())

    def die(*words: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("include.ledger.output_dead_letters.OutputDeadLetters.send", die)
        with pytest.raises(KeyboardInterrupt):
            recorded(made, ledger)
    with pytest.raises(LedgerGapError, match=r"offsets \[4, 7\) of partition 0\."):
        recorded(made, ledger)
    assert recorded(made, ledger).messages == 0


def test_partitions_that_are_added_are_recorded(scoring: Make, ledger: LedgerConnection):
    made = scoring(outputs=1)
    produce(made, json.dumps([PAYMENT]).encode(), **HEADERS)
    assert recorded(made, ledger).rows == 1
    group(made).add_partitions(3)
    produce(made, json.dumps([PAYMENT]).encode(), 2, **{**HEADERS, "row": "1"})
    assert recorded(made, ledger).rows == 1
    assert len(sources(ledger)) == 2


def test_many_dead_letters_go_in_several_kafka_transactions(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.ledger.output_dead_letters._PORTION_BYTES", 3_000)
    made = scoring()
    for number in range(10):
        produce(made, b"no prediction %d" % number, colour="red")
    assert recorded(made, ledger).dead_letters == 10
    assert [one.value for one in letters(made)] == [b"no prediction %d" % number for number in range(10)]
    assert group(made).committed() == group(made).ends()


def test_over_all_runs_each_message_is_counted_once_for_the_alarm(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.ledger.output_dead_letters._PORTION_BYTES", 3_000)
    made = scoring(outputs=1)
    counted: list[DeadLetterCounts] = []
    for _ in range(2):
        scored(made, 3)
        for _ in range(5):
            produce(made, b"no prediction", colour="red")
        scored(made, 2)
        # A ledger that is set back reads again what an earlier run was done with.
        query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 0")
        record(made.cluster, made.settings, ledger, counted.append)
        total = reduce(DeadLetterCounts.plus, counted)
        assert (total.messages, total.dead) == (len(output(made)), len(letters(made)))
        assert total.reasons == {"bad_source": total.dead}


def test_an_error_quotes_no_row(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch):
    made = scoring()
    produce(made, json.dumps([PAYMENT]).encode(), **HEADERS)
    monkeypatch.setattr("include.ledger.prediction_row.amount_cell", lambda value: b"no number")
    with pytest.raises(LedgerError) as raised:
        recorded(made, ledger)
    told = "".join(traceback.format_exception(raised.value))
    assert "invalid input syntax for type numeric" in told
    assert PAYMENT["trans_num"] not in told
    assert str(PAYMENT["cc_num"]) not in told


def test_somebodys_lock_fails_a_try_and_is_named(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.ledger.predictions._LOCK_SECONDS", 1)
    made = scoring()
    scored(made, 3)
    with ledger.opened("an analyst") as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE ledger.predictions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LedgerError, match="lock timeout"):
            recorded(made, ledger)
    assert recorded(made, ledger).rows == 3


def test_a_newer_recorder_shuts_the_older_one_out(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    made = scoring()
    scored(made, 5)
    write = Predictions.write

    def overtaken(table: Predictions, *words: Any) -> int:
        monkeypatch.setattr(Predictions, "write", write)
        recorded(made, ledger)
        return write(table, *words)

    monkeypatch.setattr(Predictions, "write", overtaken)
    with pytest.raises(LedgerError):
        recorded(made, ledger)
    assert len(sources(ledger)) == 5
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


def test_many_small_transactions_leave_the_same(
    scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recording, "_HELD_ROWS", 7)
    made = scoring(3, outputs=2)
    scored(made, 60)
    assert recorded(made, ledger).rows == 60
    assert sources(ledger) == by_source(output(made))


def test_a_database_that_cannot_be_used_says_why(scoring: Make, ledger: LedgerConnection, services: LiveStack):
    made = scoring()
    wrong = LedgerConnection(ledger.host, ledger.database, ledger.port, ledger.user, "wrong")
    with pytest.raises(LedgerAccessError, match="check login, password and database in the connection ledger_db"):
        recorded(made, wrong)
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1:1/.* does not answer"):
        recorded(made, LedgerConnection(ledger.host, ledger.database, 1, ledger.user, "secret"))
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '0000'")
    with pytest.raises(LedgerSchemaError, match=r"version 0000, .* is needed: run `fraud ledger migrate`"):
        recorded(made, ledger)
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerSchemaError, match="made by a newer version of this product"):
        recorded(made, ledger)
    query(ledger, "DROP SCHEMA ledger CASCADE")
    with pytest.raises(LedgerSchemaError, match="no tables yet"):
        recorded(made, ledger)


def test_a_group_in_use_is_refused(scoring: Make, ledger: LedgerConnection):
    made = scoring()
    with group(made).joined_by_stranger(), pytest.raises(GroupInUseError, match=made.settings.ledger_group):
        recorded(made, ledger)


json_values = st.recursive(
    # Random, for what repeats itself is stored compressed.
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
def test_postgresql_takes_every_payment_that_is_read(own: Predictions, payment: dict[str, Any], plain: bool):
    text = json.dumps([{**payment, "is_fraud": 0}], ensure_ascii=plain)
    value = text.encode("utf-8", "surrogatepass")
    row = PredictionReader().row(0, 0, value, [(name, one.encode()) for name, one in HEADERS.items()])
    if isinstance(row, Refusal):
        return
    own.write([row.line], {0: (own.recorded[0].next_offset if own.recorded else 0) + 1})
    # Any member is one operator away.
    with own._connection as connection, connection.cursor() as cursor:
        cursor.execute("SELECT payment->>'merchant', payment->>'x' FROM ledger.predictions")


@pytest.fixture
def own(scoring: Make, ledger: LedgerConnection) -> Any:
    from include.kafka.cluster import Topic

    with ledger.opened("a test") as connection:
        yield Predictions(connection, Topic("topic", "id", (0,)))
