"""Batches into PostgreSQL: real batches on the real broker, and records read while others are written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.batch.batch_record import RECORDS_FOLDER, BatchRecord, PartitionRecord
from include.batch.outbox import record_committed_batches
from include.errors import LedgerError, LedgerSchemaError
from include.ledger import recorded_batches as reading
from include.ledger.connection import LedgerConnection
from include.ledger.recorded_batches import RecordedBatches, record_batches
from include.models.model_run import ModelRun
from include.storage.staging import Storage
from tests.integration.test_protocol import payments, send
from tests.integration.test_shards import drained_and_scored, fill
from tests.support.ledger import query
from tests.support.records import paths
from tests.support.scoring import DELIVERY, MODEL, Scoring

Make = Callable[..., Scoring]
BATCH = "20260101T000000Z-aaaaaa"
AT = datetime(2026, 1, 1, tzinfo=UTC)
PART = PartitionRecord(0, 10, 20, 9, 7, 2, 1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "records"))


def record(batch_id: str = BATCH, *, parts: tuple[PartitionRecord, ...] = (PART,), **changes: Any) -> BatchRecord:
    marks = len(parts) + sum(part.delivery is not None for part in parts)
    made = BatchRecord(
        batch_id, "a run", "http://airflow/run", "a group", "topic", "id", AT, AT, ModelRun.from_dict(MODEL), parts,
        {"not_json": 1}, {"drain": 1.5}, marks,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def mailed(part: PartitionRecord = PART) -> PartitionRecord:
    return msgspec.structs.replace(part, delivery=DELIVERY)


def leave(storage: Storage, record: BatchRecord, name: str = "00000000", day: str = "20260101") -> str:
    path = f"{RECORDS_FOLDER}/{day}/{record.batch_id}-{name}.json"
    storage.write(path, msgspec.json.encode(record))
    return path


def settle(scoring: Scoring) -> None:
    record_committed_batches(scoring.cluster, scoring.settings, scoring.outbox)


def mail(scoring: Scoring) -> None:
    for report in scoring.outbox.pending_reports():
        scoring.outbox.record_delivery(report, DELIVERY)


def batches(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    return query(ledger, "SELECT batch_id, drained, scored, frauds, dead_letters FROM ledger.batches ORDER BY batch_id")


def test_a_batch_is_recorded_with_all_that_is_known_of_it(scoring: Make, ledger: LedgerConnection):
    here = scoring(2)
    send(here, *payments(1, 2), None)
    send(here, *payments(3), partition=1)
    manifest = here.drain()
    here.predict_without_model(manifest, frauds=lambda offset: offset == 1)
    here.publish(manifest)
    settle(here)
    assert record_batches(here.storage, ledger) == RecordedBatches(1, 1)
    (row,) = query(
        ledger,
        "SELECT batch_id, dag_run_id, run_url, consumer_group, topic, topic_id, model_run_id, model_name, model_asked, "
        "chosen_by, chosen_by_whom, reason, drained, scored, frauds, dead_letters, dead_letter_reasons, "
        "lost_to_retention, message_ids, recipients, mailed_at FROM ledger.batches",
    )
    settings = here.settings
    assert row == (
        manifest.batch_id, "a run", "http://airflow/run", settings.group, settings.input_topic, manifest.topic_id,
        "f" * 32, None, "latest", "default", None, None, 4, 3, 1, 1, {"empty_value": 1}, 0, [], [], None,
    )  # fmt: skip
    assert query(
        ledger,
        "SELECT partition, start_offset, end_offset, scored, frauds, dead_letters, mailed_at "
        "FROM ledger.batch_partitions ORDER BY partition",
    ) == [(0, 0, 3, 2, 1, 1, None), (1, 0, 1, 1, 0, 0, None)]
    ((steps,),) = query(ledger, "SELECT step_seconds FROM ledger.batches")
    assert set(steps) == {"drain", "predict", "publish"}
    assert all(0 < taken < 60 for taken in steps.values())
    assert record_batches(here.storage, ledger) == RecordedBatches(0, 0)

    # The mail server was down meanwhile.
    mail(here)
    assert here.outbox.entries() == []
    assert record_batches(here.storage, ledger) == RecordedBatches(1, 1)
    (row,) = query(ledger, "SELECT message_ids, recipients, mailed_at, step_seconds->'email' FROM ledger.batches")
    assert row == ([DELIVERY.message_id], list(DELIVERY.recipients), DELIVERY.at, 0.25)
    told = query(ledger, "SELECT message_id, recipients, mailed_at FROM ledger.batch_partitions")
    assert told == [(DELIVERY.message_id, list(DELIVERY.recipients), DELIVERY.at)] * 2


def test_payments_that_expired_are_counted_where_they_were_lost(scoring: Make, ledger: LedgerConnection):
    from confluent_kafka import TopicPartition

    from include.kafka.admin import Admin

    here = scoring()
    send(here, *payments(1, 2, 3, 4))
    here.change(max_payments=1).run()
    client = Admin(here.kafka)
    for answer in client.delete_records([TopicPartition(here.settings.input_topic, 0, 3)]).values():
        answer.result(30)
    here.run()
    settle(here)
    mail(here)
    record_batches(here.storage, ledger)
    assert query(ledger, "SELECT lost_to_retention FROM ledger.batches ORDER BY 1") == [(0,), (2,)]
    assert query(ledger, "SELECT start_offset, lost_to_retention FROM ledger.batch_partitions ORDER BY 1") == [
        (0, 0),
        (3, 2),
    ]


def test_a_publisher_that_died_after_its_commit_is_recorded(scoring: Make, ledger: LedgerConnection):
    here = scoring()
    send(here, *payments(1))
    manifest = here.drain_and_predict()

    def die(point: str) -> None:
        if point == "committed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.publish(manifest, die)
    assert paths(here.storage) == []
    settle(here)
    record_batches(here.storage, ledger)
    assert batches(ledger) == [(manifest.batch_id, 1, 1, 1, 0)]


def test_a_batch_that_published_nothing_is_not_recorded(scoring: Make, ledger: LedgerConnection):
    here = scoring()
    send(here, *payments(1))
    overtaken, through = here.drain_and_predict(), here.drain_and_predict()
    here.outbox.open_entry(overtaken)
    here.publish(through)
    settle(here)
    record_batches(here.storage, ledger)
    assert [row[0] for row in batches(ledger)] == [through.batch_id]


def test_a_batch_of_several_shards_is_one_row(scoring: Make, ledger: LedgerConnection):
    here = scoring(5)
    fill(here, 3, 5, 2, 4, 1)
    manifest = drained_and_scored(here, 3)
    for shard in range(3):
        here.publish(manifest, shard=shard)
    settle(here)
    mail(here)
    assert record_batches(here.storage, ledger) == RecordedBatches(1, 2)
    assert batches(ledger) == [(manifest.batch_id, 15, 15, 15, 0)]
    assert query(ledger, "SELECT partition, end_offset FROM ledger.batch_partitions ORDER BY 1") == [
        (0, 3), (1, 5), (2, 2), (3, 4), (4, 1),
    ]  # fmt: skip


def test_it_reads_a_bucket_as_well(scoring: Make, ledger: LedgerConnection, service_environment: dict[str, str]):
    here = scoring(staging_url=f"s3://staging/{datetime.now(UTC):%H%M%S%f}")
    send(here, *payments(1))
    here.run()
    settle(here)
    mail(here)
    assert record_batches(here.storage, ledger) == RecordedBatches(1, 2)
    assert paths(here.storage) == []


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("later_first", [True, False])
def test_the_fullest_record_counts_whatever_is_read_first(
    folder: Storage, ledger: LedgerConnection, together: bool, later_first: bool
):
    other = msgspec.structs.replace(PART, partition=1)
    early, late = record(), record(parts=(mailed(), mailed(other)))
    for number, one in enumerate([late, early] if later_first else [early, late]):
        leave(folder, one, str(number))
        if not together:
            record_batches(folder, ledger)
    record_batches(folder, ledger)
    assert paths(folder) == []
    assert batches(ledger) == [(BATCH, 18, 14, 4, 2)]
    assert query(ledger, "SELECT partition, message_id FROM ledger.batch_partitions ORDER BY 1") == [
        (0, DELIVERY.message_id),
        (1, DELIVERY.message_id),
    ]


def test_each_mail_is_named_once_and_the_last_is_the_batchs(folder: Storage, ledger: LedgerConnection):
    later = replace(DELIVERY, message_id="<later@test>", recipients=("z@b", "a@b"), at=DELIVERY.at + timedelta(days=1))
    parts = tuple(
        msgspec.structs.replace(PART, partition=number, delivery=delivery)
        for number, delivery in enumerate([later, DELIVERY, DELIVERY, None])
    )
    leave(folder, record(parts=parts))
    record_batches(folder, ledger)
    (row,) = query(ledger, "SELECT message_ids, recipients, mailed_at FROM ledger.batches")
    assert row == ([DELIVERY.message_id, "<later@test>"], ["a@b", "analyst@bank.test", "z@b"], later.at)


def test_a_damaged_record_stays_and_holds_up_no_other(folder: Storage, ledger: LedgerConnection, tmp_path: Path):
    damaged = leave(folder, record(BATCH))
    strange = leave(folder, record("20260101T000001Z-aaaaaa"))
    folder.write(strange, b"[]")
    leave(folder, record("20260101T000002Z-aaaaaa"))
    file = tmp_path / "records" / damaged
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    said = rf"^2 of the batches' records cannot be read, the first: {damaged} in file:.* is damaged\. The others are "
    with pytest.raises(LedgerError, match=said + r"recorded \(1 files\)\. Put the file back, or delete it"):
        record_batches(folder, ledger)
    assert paths(folder) == [damaged, strange]
    assert [row[0] for row in batches(ledger)] == ["20260101T000002Z-aaaaaa"]
    file.write_bytes(whole)
    folder.delete(strange)
    assert record_batches(folder, ledger) == RecordedBatches(1, 1)


def test_what_is_written_while_it_reads_is_read_the_next_time(
    folder: Storage, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    """The mail goes out between the reading of a record and its deletion."""
    leave(folder, record(), "early")
    store = reading._record

    def store_and_write(*arguments: Any) -> int:
        changed = store(*arguments)
        leave(folder, record(parts=(mailed(),)), "late")
        return changed

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(reading, "_record", store_and_write)
        record_batches(folder, ledger)
    assert [path.endswith("-late.json") for path in paths(folder)] == [True]
    record_batches(folder, ledger)
    assert query(ledger, "SELECT message_ids FROM ledger.batches") == [([DELIVERY.message_id],)]


def test_two_readers_and_a_writer_at_once_lose_nothing(
    folder: Storage, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "_FILES", 7)
    names = [f"20260101T0000{second:02}Z-aaaaaa" for second in range(60)]
    errors: list[BaseException] = []
    written = threading.Event()

    def write() -> None:
        for name in names:
            leave(folder, record(name), "early")
            leave(folder, record(name, parts=(mailed(),)), "late")
        written.set()

    def read() -> None:
        try:
            while not written.is_set():
                record_batches(folder, ledger)
            record_batches(folder, ledger)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=target) for target in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == paths(folder) == []
    assert query(ledger, "SELECT count(*), count(mailed_at), sum(marks) FROM ledger.batches") == [(60, 60, 120)]
    assert query(ledger, "SELECT count(*), count(mailed_at) FROM ledger.batch_partitions") == [(60, 60)]


def test_a_reader_that_died_after_its_commit_repeats_it(
    folder: Storage, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch
):
    leave(folder, record())
    with monkeypatch.context() as dying:
        dying.setattr(Storage, "delete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record_batches(folder, ledger)
    first = query(ledger, "SELECT * FROM ledger.batch_partitions")
    assert record_batches(folder, ledger) == RecordedBatches(1, 1)
    assert query(ledger, "SELECT * FROM ledger.batch_partitions") == first


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_people_typed_cannot_hold_it_up(folder: Storage, ledger: LedgerConnection):
    model = replace(ModelRun.from_dict(MODEL), who="al\0ice", reason="'; DROP TABLE ledger.batches; -- \0 ü")
    leave(folder, record(model=model))
    record_batches(folder, ledger)
    assert query(ledger, "SELECT chosen_by_whom, reason FROM ledger.batches") == [
        ("alice", "'; DROP TABLE ledger.batches; --  ü")
    ]


def test_where_the_ledger_is_away_or_without_tables_records_stay(folder: Storage, ledger: LedgerConnection):
    path = leave(folder, record())
    with pytest.raises(LedgerError, match=r"the ledger's database at 127\.0\.0\.1:1/.* does not answer"):
        record_batches(folder, replace(ledger, port=1))
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '0000'")
    with pytest.raises(LedgerSchemaError, match="run `fraud ledger migrate`"):
        record_batches(folder, ledger)
    assert paths(folder) == [path]
