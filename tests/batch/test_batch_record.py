"""Batch records for the ledger: when they are written, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from include.batch.batch_record import BatchRecord, PartitionRecord
from include.batch.cleaning import remove_old_batches, remove_old_records
from include.batch.manifest import Drained, Manifest
from include.batch.outbox import Outbox
from include.batch.scored_batch import ScoredBatch
from include.errors import StagingError
from include.kafka.committed_offsets import CommittedOffset
from include.storage.staging import Storage
from tests.batch.test_outbox import FIRST, SECOND, committed_by, publish
from tests.support.records import paths, records
from tests.support.scoring import DELIVERY, MODEL

Stage = Callable[..., Manifest]


@pytest.fixture
def outbox(folder: Storage) -> Outbox:
    return Outbox(folder, "a/group", "topic", "scored")


def settle(outbox: Outbox, *partitions: int) -> None:
    outbox.record_commits(lambda: {partition: committed_by(SECOND, 20) for partition in partitions})


def mail(outbox: Outbox) -> None:
    for report in outbox.pending_reports():
        outbox.record_delivery(report, DELIVERY)


def test_batch_without_fraud_has_one_record_when_its_entry_is_closed(outbox: Outbox, staged: Stage, folder: Storage):
    publish(outbox, staged(FIRST, {0: 0, 1: 0}), 0, 1)
    settle(outbox, 0, 1)
    assert outbox.entries() == []
    (record,) = records(folder)
    assert (record.batch_id, record.run_id, record.group, record.topic) == (FIRST, "r", "a/group", "topic")
    assert record.model.run_id == MODEL["run_id"]
    assert record.partitions == tuple(PartitionRecord(number, 10, 13, 3, 2, 0, 1, 0) for number in (0, 1))
    assert record.deliveries == []
    settle(outbox, 0, 1)
    assert len(paths(folder)) == 1


def test_batch_with_fraud_is_recorded_before_and_after_its_report(outbox: Outbox, staged: Stage, folder: Storage):
    publish(outbox, staged(FIRST, {0: 1}), 0)
    settle(outbox, 0)
    before_delivery = records(folder)
    assert [record.deliveries for record in before_delivery] == [[]]
    settle(outbox, 0)
    assert records(folder) == before_delivery
    mail(outbox)
    before, after = records(folder)
    assert after.partitions == (replace_delivery(before.partitions[0]),)
    assert (before.marks, after.marks) == (1, 2)
    assert after.seconds["email"] == 0.25


def replace_delivery(part: PartitionRecord) -> PartitionRecord:
    return msgspec.structs.replace(part, delivery=DELIVERY)


def test_batch_without_commits_has_no_record(outbox: Outbox, staged: Stage, folder: Storage):
    publish(outbox, staged(FIRST, {0: 1}))
    settle(outbox, 0)
    assert outbox.entries() == paths(folder) == []


def test_commit_of_a_dead_publisher_is_recorded_from_its_note(outbox: Outbox, staged: Stage, folder: Storage):
    publish(outbox, staged(FIRST, {0: 0}))
    outbox.record_commits(lambda: {0: committed_by(FIRST)})
    (record,) = records(folder)
    assert [part.partition for part in record.partitions] == [0]
    assert "publish" not in record.seconds


def test_record_has_committed_partitions_only(outbox: Outbox, staged: Stage, folder: Storage):
    manifest = staged(FIRST, {0: 1, 1: 2})
    scored = ScoredBatch.load(folder, manifest)
    parts = [
        replace(one, reasons={code: 1}) for one, code in zip(scored.partitions, ("not_json", "no_row"), strict=True)
    ]
    replace(scored, partitions=tuple(parts)).save(folder, manifest.folder)
    publish(outbox, manifest, 1)
    outbox.record_commits(lambda: {0: CommittedOffset(10), 1: committed_by(FIRST)})
    assert paths(folder) == []
    mail(outbox)
    (early,) = records(folder)
    assert [part.partition for part in early.partitions] == [1]
    assert early.reasons == {"no_row": 1}
    settle(outbox, 0, 1)
    _, late = records(folder)
    assert late == early


def test_record_has_both_deliveries_of_a_later_commit(outbox: Outbox, staged: Stage, folder: Storage):
    manifest = staged(FIRST, {0: 1, 1: 1})
    publish(outbox, manifest, 0)
    mail(outbox)
    outbox.record_commit(manifest, 1)
    (report,) = outbox.pending_reports()
    later = replace(DELIVERY, message_id="<later@test>", at=DELIVERY.at + timedelta(hours=1))
    outbox.record_delivery(report, later)
    assert outbox.entries() == []
    first, last = records(folder)
    assert first.deliveries == [DELIVERY]
    assert last.deliveries == [DELIVERY, later]
    assert [part.delivery for part in last.partitions] == [DELIVERY, later]


@pytest.mark.parametrize("settled", [False, True])
def test_record_is_written_by_the_next_run_if_the_mailing_task_dies(
    outbox: Outbox, staged: Stage, folder: Storage, monkeypatch: pytest.MonkeyPatch, settled: bool
):
    publish(outbox, staged(FIRST, {0: 1}), 0)
    if settled:
        settle(outbox, 0)
    (report,) = outbox.pending_reports()
    with monkeypatch.context() as dying:
        dying.setattr("include.batch.outbox.write_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            outbox.record_delivery(report, DELIVERY)
    assert outbox.entries() == [FIRST]
    settle(outbox, 0)
    assert list(outbox.pending_reports()) == outbox.entries() == []
    assert records(folder)[-1].deliveries == [DELIVERY]


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_failed_record_stops_no_other_batch_and_is_written_later(
    outbox: Outbox, staged: Stage, folder: Storage, monkeypatch: pytest.MonkeyPatch
):
    for batch in (FIRST, SECOND):
        publish(outbox, staged(batch, {0: 0}), 0)
    write = Storage.write

    def refusing(storage: Storage, path: str, data: bytes) -> None:
        if path.startswith("records/") and FIRST in path:
            raise StagingError(f"cannot write {path}: 503 Slow Down")
        write(storage, path, data)

    with monkeypatch.context() as broken:
        broken.setattr(Storage, "write", refusing)
        settle(outbox, 0)
    assert outbox.entries() == [FIRST]
    settle(outbox, 0)
    assert outbox.entries() == []
    assert [record.batch_id for record in records(folder)] == [FIRST, SECOND]


def test_seconds_are_of_the_slowest_shard(outbox: Outbox, staged: Stage, folder: Storage):
    manifest = msgspec.structs.replace(staged(FIRST, {0: 0, 1: 0}), shards=((0,), (1,)), seconds=0.5)
    manifest.save(folder)
    scored = ScoredBatch.load_shard(folder, manifest.folder, 0)
    for shard, (scores, read, predicted) in enumerate(zip(scored.partitions, (2.0, 1.0), (3.0, 4.0), strict=True)):
        manifest.save_drained(folder, shard, Drained((scores.part,), seconds=read))
        model = MODEL | {"seconds": 0.75, "who": "alice"}
        replace(scored, model=model, partitions=(scores,), seconds=predicted).save(folder, manifest.folder, shard)
    outbox.open_entry(manifest)
    outbox.record_commit(manifest, 0, 6.0)
    outbox.record_commit(manifest, 1, 5.0)
    settle(outbox, 0, 1)
    (record,) = records(folder)
    assert record.seconds == {"drain": 2.5, "resolve_model": 0.75, "predict": 4.0, "publish": 6.0}
    assert record.model.who == "alice"


def test_batch_of_earlier_version_is_recorded_without_unknown_fields(outbox: Outbox, staged: Stage, folder: Storage):
    manifest = staged(FIRST, {0: 1})
    scored = folder.need(f"{manifest.folder}/scored-0.json").decode()
    folder.write(f"{manifest.folder}/scored-0.json", scored.replace(',"reasons":{}', "", 1).encode())
    outbox.open_entry(manifest)
    folder.write(f"{manifest.folder}/committed-0", b"")
    folder.write(f"{manifest.folder}/reported-0", b"")
    settle(outbox, 0)
    (record,) = records(folder)
    assert (record.seconds, record.deliveries, record.marks) == ({}, [], 2)


@pytest.mark.parametrize("mark", ["committed-0", "drained-0.json"])
def test_record_leaves_out_the_duration_of_a_damaged_file(
    outbox: Outbox, staged: Stage, folder: Storage, tmp_path: Path, mark: str
):
    manifest = msgspec.structs.replace(staged(FIRST, {0: 1}), shards=((0,),))
    manifest.save(folder)
    manifest.save_drained(folder, 0, Drained(manifest.partitions, seconds=1.0))
    publish(outbox, manifest, 0)
    mail(outbox)
    settled = records(folder)
    outbox.open_entry(manifest)
    (tmp_path / "staging" / manifest.folder / mark).write_bytes(b"damaged")
    settle(outbox, 0)
    assert outbox.entries() == []
    assert len(records(folder)) == len(settled) + 1


def test_record_is_written_to_s3(bucket: Storage, folder: Storage, staged: Stage):
    manifest = staged(FIRST, {0: 0})
    for name in ("manifest.json", "scored-0.json"):
        bucket.write(f"{manifest.folder}/{name}", folder.need(f"{manifest.folder}/{name}"))
    outbox = Outbox(bucket, "a/group", "topic")
    publish(outbox, manifest, 0)
    settle(outbox, 0)
    (record,) = records(bucket)
    assert record.marks == 1
    (path,) = paths(bucket)
    assert f"records/{datetime.now(UTC):%Y%m%d}/{FIRST}-" in path


def test_old_records_are_removed_by_day(storage: Storage):
    now = datetime.now(UTC)
    days = [f"{now - timedelta(hours=hours):%Y%m%d}" for hours in (200, 160, 0)]
    for day in days:
        storage.write(f"records/{day}/a-record.json", b"{}")
    assert remove_old_batches(storage, hours=1) == 0
    storage.delete(f"records/{days[1]}/a-record.json")
    assert remove_old_records(storage, hours=168) == 1
    assert days[0] not in storage.list("records")
    assert storage.list(f"records/{days[2]}") == ["a-record.json"]
    assert remove_old_records(storage, hours=168) == 0


def test_record_holds_no_payment_data(outbox: Outbox, staged: Stage, folder: Storage):
    """A record is kept longer than its batch."""
    publish(outbox, staged(FIRST, {0: 2}), 0)
    mail(outbox)
    (path,) = paths(folder)
    text = folder.need(path).decode()
    assert '"n":10' not in text
    assert set(BatchRecord.__struct_fields__) == {
        "batch_id", "run_id", "run_url", "group", "topic", "topic_id", "drained_at", "scored_at", "model",
        "partitions", "reasons", "seconds", "marks",
    }  # fmt: skip
