"""`fraud reconcile` finds each kind of damage, on the real broker and the real database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner, Result

from include.cli.main import app
from include.errors import LedgerGapError
from include.ledger.connection import LedgerConnection
from include.ledger.recorded_batches import record_batches
from include.ledger.recorder import record
from include.settings import Settings
from tests.support import kafka_log
from tests.support.group import Group
from tests.support.ledger import query
from tests.support.live_stack import LiveStack
from tests.support.payments import payment
from tests.support.scoring import Scoring
from tests.support.topics import Arrived, Reader

Make = Callable[..., Scoring]


def environment(here: Scoring, ledger: LedgerConnection) -> dict[str, str]:
    settings = here.settings
    user = f"{ledger.user}:{ledger.password}@{ledger.host}:{ledger.port}"
    return {
        "KAFKA_BOOTSTRAP_SERVERS": str(here.kafka["bootstrap.servers"]),
        "FRAUD_INPUT_TOPIC": settings.input_topic,
        "FRAUD_OUTPUT_TOPIC": settings.output_topic,
        "FRAUD_DEAD_LETTER_TOPIC": settings.dead_letter_topic,
        "FRAUD_OUTPUT_DEAD_LETTER_TOPIC": settings.output_dead_letter_topic,
        "FRAUD_GROUP": settings.group,
        "FRAUD_LEDGER_GROUP": settings.ledger_group,
        "LOGGER_SQL_URI": f"postgresql://{user}/{ledger.database}",
    }


def fraud(here: Scoring, ledger: LedgerConnection, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), env=environment(here, ledger))


def reconcile(here: Scoring, ledger: LedgerConnection, *words: str) -> Result:
    return fraud(here, ledger, "reconcile", *words)


def score(here: Scoring, *counts: int) -> None:
    """Send the given number of payments to each partition and score them as one batch."""
    servers = str(here.kafka["bootstrap.servers"])
    for partition, count in enumerate(counts):
        messages = [payment(number + 0.25).message for number in range(count)]
        kafka_log.send(servers, here.settings.input_topic, messages, partition=partition)
    here.run()


def recorded(here: Scoring, ledger: LedgerConnection) -> None:
    from include.batch.outbox import record_committed_batches

    record_committed_batches(here.cluster, here.settings, here.outbox)
    record(here.cluster, here.settings, ledger)
    record_batches(here.storage, ledger)


ScoringAndLedger = tuple[Scoring, LedgerConnection]


def two_batches(made: Scoring, ledger: LedgerConnection) -> Scoring:
    """Score and record two batches on two partitions, with one dead letter."""
    score(made, 5, 3)
    kafka_log.send(str(made.kafka["bootstrap.servers"]), made.settings.input_topic, [b"no JSON"], partition=1)
    score(made, 2, 0)
    recorded(made, ledger)
    return made


@pytest.fixture(scope="module")
def shared_ledger(services: LiveStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringAndLedger]:
    """Two recorded batches, for all tests that only read the topics."""
    servers = services.bootstrap_servers
    names = [kafka_log.make_topic(servers, count, prefix) for count, prefix in ((2, "in"), (2, "out"), (1, "dead"))]
    names.append(kafka_log.make_topic(servers, 1, "refused"))
    given = dict(
        zip(("input_topic", "output_topic", "dead_letter_topic", "output_dead_letter_topic"), names, strict=True)
    )
    settings = Settings(
        **given, group=f"group of {names[0]}", ledger_group=f"ledger of {names[0]}",
        staging_url=str(tmp_path_factory.mktemp("staging")),
    )  # fmt: skip
    with services.own_ledger() as ledger:
        yield two_batches(Scoring({"bootstrap.servers": servers}, settings), ledger), ledger
    kafka_log.delete_topics(servers, names)


@pytest.fixture
def ledger_copy(shared_ledger: ScoringAndLedger, services: LiveStack) -> Iterator[ScoringAndLedger]:
    """The same batches with a copy of their ledger, which a test may damage."""
    with services.own_ledger(copy_of=shared_ledger[1]) as ledger:
        yield shared_ledger[0], ledger


@pytest.fixture
def here(scoring: Make, ledger: LedgerConnection) -> Scoring:
    """Two recorded batches on topics of the test's own, to which it may write."""
    return two_batches(scoring(2, outputs=2), ledger)


def test_recorded_batches_are_complete(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    done = reconcile(here, ledger)
    assert done.exit_code == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["all", "10", "0", "0", "0", "0", "0", "0"] in lines
    topic = here.settings.input_topic
    assert done.stdout.splitlines()[-3:] == [
        f"{topic}/0: complete",
        f"{topic}/1: complete",
        "complete: 11 due, each came out once, 10 rows in the ledger",
    ]


def test_deleted_row_is_listed_and_rewind_restores_it(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    query(ledger, "DELETE FROM ledger.predictions WHERE (source_partition, source_offset) = (0, 2)")
    done = reconcile(here, ledger)
    topic = here.settings.input_topic
    assert done.exit_code == 1
    assert "UNRECORDED: 1 published, but not in the ledger" in done.stdout
    assert f"{topic}/0: NOT complete: 1 unrecorded" in done.stdout
    assert f"{topic}/1: complete" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith(f"  {topic}/0/2 row 0: at "))
    partition, offset = line.split("/")[-2:]
    again = fraud(here, ledger, "ledger", "rewind", "--partition", partition, "--to", offset)
    assert again.exit_code == 0, again.stderr
    record(here.cluster, here.settings, ledger)
    assert reconcile(here, ledger).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        "amt = amt + 1",
        "cc_num = '4000000000000002'",
        "prediction = NOT prediction",
        "fraud_probability = 0.1",
        "model_run_id = 'another'",
        "batch_id = 'another'",
        "scored_at = scored_at + interval '1 second'",
        "payment = '{}'",
        "trans_num = NULL",
        "paid_at = NULL",
    ],
)
def test_altered_value_is_listed_and_rewind_restores_it(ledger_copy: ScoringAndLedger, change: str):
    here, ledger = ledger_copy
    query(ledger, f"UPDATE ledger.predictions SET {change} WHERE (source_partition, source_offset) = (1, 2)")
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert "DIFFERING: 1 in the ledger with other values than published" in done.stdout
    assert f"{here.settings.input_topic}/1: NOT complete: 1 differing" in done.stdout
    assert f"  {here.settings.input_topic}/1/2 row 0: at {here.settings.output_topic}/" in done.stdout
    assert fraud(here, ledger, "ledger", "rewind", "--to", "earliest").exit_code == 0
    record(here.cluster, here.settings, ledger)
    assert reconcile(here, ledger).exit_code == 0


def test_row_that_was_never_published_is_listed(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    query(
        ledger,
        "INSERT INTO ledger.predictions SELECT (jsonb_populate_record(known, '{\"source_row\": 7}')).* "
        "FROM ledger.predictions known WHERE (source_partition, source_offset) = (0, 1)",
    )
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert "UNFOUNDED: 1 in the ledger, but never published" in done.stdout
    assert f"  {here.settings.input_topic}/0/1 row 7: at " in done.stdout


def produce(here: Scoring, value: bytes, headers: dict[str, str]) -> None:
    from confluent_kafka import Producer

    producer = Producer(here.kafka)
    given = [(name, text.encode()) for name, text in headers.items()]
    producer.produce(here.settings.output_topic, value, b"a key", 1, headers=given)
    assert producer.flush(30) == 0


@pytest.mark.parametrize("is_recorded", [True, False])
def test_message_without_headers_is_listed_as_foreign(here: Scoring, ledger: LedgerConnection, is_recorded: bool):
    produce(here, b'[{"is_fraud":1}]', {})
    if is_recorded:
        record(here.cluster, here.settings, ledger)
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert "FOREIGN: 1 on the output topic, but not a prediction" in done.stdout
    place = next(line for line in done.stdout.splitlines() if "no_headers: " in line)
    assert place.startswith(f"  {here.settings.output_topic}/1/")


@pytest.mark.parametrize(
    ("source", "kind"),
    [("0/2", "DOUBLE: 1 came out"), ("0/700", "NOWHERE: 1 came out"), ("1/3", "NOWHERE: 1 came out")],
)
def test_forged_prediction_is_double_or_from_nowhere(here: Scoring, ledger: LedgerConnection, source: str, kind: str):
    copied = first_output(here)
    produce(here, copied.value or b"", {**copied.headers, "source": f"{here.settings.input_topic}/{source}"})
    for _ in range(2):
        done = reconcile(here, ledger)
        assert done.exit_code == 1
        assert kind in done.stdout
        record(here.cluster, here.settings, ledger)


@pytest.mark.parametrize("source", ["another_topic/0/2", "{topic}/9/2"])
def test_prediction_from_a_partition_without_batches_is_foreign(here: Scoring, ledger: LedgerConnection, source: str):
    copied = first_output(here)
    named = source.format(topic=here.settings.input_topic)
    produce(here, copied.value or b"", {**copied.headers, "source": named})
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert f"its source is on {named.rpartition('/')[0]}, of which no batch was scored" in done.stdout


def test_message_with_undecodable_header_is_foreign(here: Scoring, ledger: LedgerConnection):
    servers = str(here.kafka["bootstrap.servers"])
    kafka_log.send_with_header(servers, here.settings.output_topic, b'[{"is_fraud":1}]', b"\xff")
    record(here.cluster, here.settings, ledger)
    assert "FOREIGN: 1 on the output topic" in reconcile(here, ledger).stdout


def test_row_proves_payment_whose_output_message_expired(here: Scoring, ledger: LedgerConnection):
    output = Group(str(here.kafka["bootstrap.servers"]), here.settings.group, here.settings.output_topic)
    output.expire(output.ends())
    done = reconcile(here, ledger)
    assert done.exit_code == 0, done.stdout
    assert "note: 10 rows are not compared: their messages expired on the output topic" in done.stdout


def test_rows_of_deleted_output_topic_are_not_unfounded(here: Scoring, ledger: LedgerConnection):
    servers, topic = str(here.kafka["bootstrap.servers"]), here.settings.output_topic
    kafka_log.delete_topics(servers, [topic])
    kafka_log.make_topic(servers, 2, name=topic)
    score(here, 1, 1)
    with pytest.raises(LedgerGapError):
        recorded(here, ledger)
    recorded(here, ledger)
    shown = fraud(here, ledger, "ledger", "show").stdout
    assert shown.count("lost: offsets from ") == 2
    assert "on of partition 1 of the deleted topic, expired unrecorded (found 20" in shown
    done = reconcile(here, ledger)
    assert done.exit_code == 0, done.stdout
    assert "note: 10 rows are not compared" in done.stdout
    assert "2 ranges of offsets expired before they were recorded" in done.stdout


def test_rows_of_deleted_output_topic_with_more_partitions_are_not_unfounded(here: Scoring, ledger: LedgerConnection):
    """The same holds before the recorder has read the new topic."""
    servers, topic = str(here.kafka["bootstrap.servers"]), here.settings.output_topic
    kafka_log.delete_topics(servers, [topic])
    kafka_log.make_topic(servers, 1, name=topic)
    note = "note: 10 rows are not compared: their messages expired on the output topic"
    assert note in reconcile(here, ledger).stdout
    for _ in range(2):
        with pytest.raises(LedgerGapError, match=r"on of partition 1 of the deleted topic"):
            recorded(here, ledger)
        query(ledger, "UPDATE ledger.lost_offsets SET told_at = NULL")
    query(ledger, "UPDATE ledger.lost_offsets SET told_at = now()")
    recorded(here, ledger)
    done = reconcile(here, ledger)
    assert done.exit_code == 0, done.stdout
    assert note in done.stdout


def test_payment_scored_again_waits_for_the_recorder(here: Scoring, ledger: LedgerConnection):
    copied = first_output(here)
    produce(here, copied.value or b"", {**copied.headers, "scored_at": "2026-02-01T00:00:00+00:00"})
    found = reconcile(here, ledger).stdout
    assert "DOUBLE: 1 came out" in found
    assert "; 1 to be recorded by the next run of record_predictions" in found
    assert "DIFFERING" not in found
    assert "MISCOUNTED" not in found
    recorded(here, ledger)
    assert "MISCOUNTED" not in reconcile(here, ledger).stdout


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE ledger.batch_partitions SET scored = scored + 1 WHERE start_offset = 0 AND partition = 0",
        "UPDATE ledger.batch_partitions SET scored = scored - 1 WHERE start_offset = 0 AND partition = 0",
        "UPDATE ledger.batch_partitions SET frauds = frauds + 1 WHERE start_offset = 0 AND partition = 0",
        "UPDATE ledger.batch_partitions SET dead_letters = 1 WHERE start_offset = 0 AND partition = 0",
    ],
)
def test_batch_record_with_other_counts_is_miscounted(ledger_copy: ScoringAndLedger, damage: str):
    here, ledger = ledger_copy
    query(ledger, damage)
    query(
        ledger,
        "UPDATE ledger.batches SET (scored, frauds, dead_letters) = (SELECT sum(scored), sum(frauds), "
        "sum(dead_letters) FROM ledger.batch_partitions AS parts WHERE parts.batch_id = batches.batch_id)",
    )
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert "MISCOUNTED: 1 batches whose record counts differ from the ledger" in done.stdout
    assert f"{here.settings.input_topic}/0: NOT complete: 1 miscounted" in done.stdout


@pytest.mark.parametrize(
    ("column", "told"),
    [
        *((name, "its partitions do not add up") for name in ("scored", "frauds", "dead_letters", "lost_to_retention")),
        ("model_run_id", "scored by another model"),
    ],
)
def test_batch_that_differs_from_its_partitions_is_miscounted(ledger_copy: ScoringAndLedger, column: str, told: str):
    here, ledger = ledger_copy
    altered = "'another'" if column == "model_run_id" else f"{column} + 1"
    batch = "(SELECT batch_id FROM ledger.batch_partitions WHERE start_offset = 0 AND partition = 0)"
    query(ledger, f"UPDATE ledger.batches SET {column} = {altered} WHERE batch_id = {batch}")
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert f"{here.settings.input_topic}/0: NOT complete: 1 miscounted" in done.stdout
    assert told in done.stdout


def first_output(here: Scoring) -> Arrived:
    reader = Reader(str(here.kafka["bootstrap.servers"]), here.settings.output_topic)
    reader._starts = dict.fromkeys(reader._starts, 0)
    return reader.arrived()[0]


def test_offsets_without_batch_are_unbatched(here: Scoring, ledger: LedgerConnection):
    """An operator moved the group forward, past two payments."""
    servers, topic = str(here.kafka["bootstrap.servers"]), here.settings.input_topic
    kafka_log.send(servers, topic, [payment(1.5).message] * 4, partition=0)
    Group(servers, here.settings.group, topic).set({0: 9})
    score(here, 1, 1)
    recorded(here, ledger)
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert "MISSING: 2 never came out" in done.stdout
    assert f"  {topic}/0: offsets [7, 9)" in done.stdout
    assert f"{topic}/0: NOT complete: 2 missing, 2 unbatched" in done.stdout
    assert f"{topic}/1: complete" in done.stdout


def test_offsets_of_a_lost_batch_record_are_unbatched(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    first = "SELECT batch_id FROM ledger.batch_partitions ORDER BY start_offset LIMIT 1"
    query(ledger, f"DELETE FROM ledger.batches WHERE batch_id = ({first})")
    done = reconcile(here, ledger)
    assert done.exit_code == 1
    assert f"  {here.settings.input_topic}/0: offsets [0, 5)" in done.stdout


def test_unrecorded_batch_is_complete_and_counted_as_waiting(here: Scoring, ledger: LedgerConnection):
    score(here, 3, 0)
    done = reconcile(here, ledger)
    assert done.exit_code == 0, done.stdout
    assert "; 3 to be recorded by the next run of record_predictions" in done.stdout
    assert f"{here.settings.input_topic}/0: no batch record yet of offsets [7, 10)" in done.stdout
    recorded(here, ledger)
    assert "to be recorded" not in reconcile(here, ledger).stdout


def test_window_may_start_at_an_offset_or_a_time(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    query(ledger, "DELETE FROM ledger.predictions WHERE (source_partition, source_offset) = (0, 2)")
    assert reconcile(here, ledger, "--from", "0:3").exit_code == 0
    assert reconcile(here, ledger, "--from", "0:2").exit_code == 1
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert reconcile(here, ledger, "--from", (now - hour).isoformat()).exit_code == 1
    nothing = reconcile(here, ledger, "--from", (now + hour).isoformat())
    assert nothing.exit_code == 2, nothing.stdout
    assert "nothing was checked" in nothing.stdout
    wrong = reconcile(here, ledger, "--from", "noon")
    assert wrong.exit_code == 2
    assert "--from noon: give OFFSET or PARTITION:OFFSET, or a time as 2026-01-31T08:00" in wrong.stderr


def test_json_lists_unrecorded_payments(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    query(ledger, "DELETE FROM ledger.predictions WHERE (source_partition, source_offset) = (0, 2)")
    told = json.loads(reconcile(here, ledger, "--json").stdout)
    assert told["whole"] is False
    assert told["ledger"]["unrecorded"][0]["source"] == f"{here.settings.input_topic}/0/2"


def test_unreachable_ledger_exits_2_without_its_password(ledger_copy: ScoringAndLedger):
    here, ledger = ledger_copy
    away = LedgerConnection(ledger.host, ledger.database, 1, ledger.user, "secret")
    done = reconcile(here, away)
    assert done.exit_code == 2
    assert "does not answer" in done.stderr
    assert "secret" not in done.stderr


def test_ledger_show_counts_waiting_and_rewind_refuses_to_skip_them(here: Scoring, ledger: LedgerConnection):
    score(here, 2, 0)
    shown = fraud(here, ledger, "ledger", "show")
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()[2:]]
    assert sum(int(row[4]) for row in rows) >= 2
    ahead = fraud(here, ledger, "ledger", "rewind", "--to", "9999")
    assert "holds offsets from 0 to" in ahead.stderr


def offsets(ledger: LedgerConnection) -> dict[int, int]:
    return dict(query(ledger, "SELECT partition, next_offset FROM ledger.recorded_offsets"))  # type: ignore[arg-type]


@pytest.fixture
def recorded_output(here: Scoring, ledger: LedgerConnection) -> Scoring:
    """The batches, with messages recorded from each partition of the output topic."""
    for partition in (0, 1):
        send(here, partition)
    record(here.cluster, here.settings, ledger)
    return here


def send(here: Scoring, partition: int) -> None:
    servers = str(here.kafka["bootstrap.servers"])
    kafka_log.send(servers, here.settings.output_topic, [b"no prediction"] * 3, partition=partition)


def expire(here: Scoring, before: dict[int, int]) -> None:
    Group(str(here.kafka["bootstrap.servers"]), topic=here.settings.output_topic).expire(before)


def test_rewind_sets_each_partition_to_its_own_earliest_offset(recorded_output: Scoring, ledger: LedgerConnection):
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 1 WHERE partition = 1")
    expire(recorded_output, {0: 1, 1: 2})
    done = fraud(recorded_output, ledger, "ledger", "rewind", "--to", "earliest")
    topic = recorded_output.settings.output_topic
    assert done.stdout == f"{topic}/0: recorded again from 1 on\n{topic}/1: recorded again from 1 on\n"
    assert offsets(ledger) == {0: 1, 1: 1}


def test_rewind_skips_partition_without_recorded_offset(recorded_output: Scoring, ledger: LedgerConnection):
    query(ledger, "DELETE FROM ledger.recorded_offsets WHERE partition = 1")
    expire(recorded_output, {1: 1})
    done = fraud(recorded_output, ledger, "ledger", "rewind", "--to", "earliest")
    topic = recorded_output.settings.output_topic
    assert done.stdout == f"{topic}/0: recorded again from 0 on\n{topic}/1: nothing is recorded yet, not changed\n"
    assert offsets(ledger) == {0: 0}


def test_rewind_refuses_offset_past_the_recorded_one(recorded_output: Scoring, ledger: LedgerConnection):
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 1 WHERE partition = 1")
    before = offsets(ledger)
    done = fraud(recorded_output, ledger, "ledger", "rewind", "--to", "2")
    assert done.stderr == (
        f"fraud ledger rewind: --to 2: {recorded_output.settings.output_topic}/1 is recorded to 1 only, and messages "
        "before 2 would be skipped: give a lower offset, or --to earliest, or name with --partition the partitions "
        "that are recorded that far\n"
    )
    assert offsets(ledger) == before


def test_rewind_to_a_time_after_all_messages_changes_nothing(recorded_output: Scoring, ledger: LedgerConnection):
    before = offsets(ledger)
    send(recorded_output, 1)
    done = fraud(
        recorded_output, ledger, "ledger", "rewind", "--to", (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    )
    assert done.exit_code == 0, done.exception
    assert offsets(ledger) == before
