from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.batch.scored_batch import ScoredBatch
from include.errors import StagingError
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.storage.staging import Storage
from tests.support.scoring import DELIVERY

Stage = Callable[..., Manifest]
FIRST, SECOND = "20260101T000000Z-aaaaaa", "20260101T000100Z-bbbbbb"


@pytest.fixture
def outbox(folder: Storage) -> Outbox:
    return Outbox(folder, "a/group", "topic", "scored")


def committed_by(batch_id: str | None, offset: int = 13) -> CommittedOffset:
    return CommittedOffset(offset, CommitNote(batch_id, "id", "now") if batch_id else None)


def pending_frauds(outbox: Outbox) -> dict[str, list[tuple[str, int]]]:
    return {
        report.key: [(fraud.source, fraud.row) for fraud in report.frauds]  # type: ignore[attr-defined]
        for report in outbox.pending_reports()
    }


def publish(outbox: Outbox, manifest: Manifest, *partitions: int) -> None:
    outbox.open_entry(manifest)
    for partition in partitions:
        outbox.record_commit(manifest, partition)


def test_report_is_pending_from_the_first_commit_until_its_delivery(outbox: Outbox, staged: Stage):
    manifest = staged(FIRST, {0: 1, 1: 2})
    outbox.open_entry(manifest)
    assert pending_frauds(outbox) == {}
    outbox.record_commit(manifest, 0)
    assert pending_frauds(outbox) == {FIRST: [("topic/0/10", 0)]}
    outbox.record_commit(manifest, 1)
    (report,) = outbox.pending_reports()
    assert [fraud.source for fraud in report.frauds] == ["topic/0/10", "topic/1/10", "topic/1/11"]
    assert next(iter(report.frauds)).record == b'{"n":10,"is_fraud":1,"fraud_confirmed":null}'
    assert report.facts.ranges == (("topic", 0, 10, 13), ("topic", 1, 10, 13))
    assert (report.facts.scored, report.facts.frauds, report.facts.dead_letters) == (4, 3, 2)
    assert report.facts.output_topic == "scored"
    outbox.record_delivery(report, DELIVERY)
    assert pending_frauds(outbox) == {}
    assert outbox.entries() == []


def test_partition_that_is_committed_later_has_its_own_report(outbox: Outbox, staged: Stage):
    manifest = staged(FIRST, {0: 1, 1: 1})
    publish(outbox, manifest, 0)
    (report,) = outbox.pending_reports()
    outbox.record_commit(manifest, 1)
    outbox.record_delivery(report, DELIVERY)
    assert pending_frauds(outbox) == {FIRST: [("topic/1/10", 0)]}
    (report,) = outbox.pending_reports()
    assert report.facts.ranges == (("topic", 1, 10, 13),)
    outbox.record_delivery(report, DELIVERY)
    assert outbox.entries() == []


def test_batch_without_fraud_has_no_report(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 0, 1: 0}), 0, 1)
    assert pending_frauds(outbox) == {}
    outbox.record_commits(lambda: {0: committed_by(FIRST), 1: committed_by(FIRST)})
    assert outbox.entries() == []


def test_pending_reports_come_oldest_first(outbox: Outbox, staged: Stage):
    publish(outbox, staged(SECOND, {0: 1}), 0)
    publish(outbox, staged(FIRST, {0: 1, 1: 0}), 0, 1)
    assert list(pending_frauds(outbox)) == [FIRST, SECOND]


def test_report_of_a_dead_publisher_is_found_by_the_commit_note(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1, 1: 1}))
    outbox.record_commits(lambda: {0: committed_by(FIRST), 1: CommittedOffset(10)})
    assert pending_frauds(outbox) == {FIRST: [("topic/0/10", 0)]}


@pytest.mark.parametrize(
    "now", [committed_by(SECOND), committed_by(None), CommittedOffset(9), CommittedOffset(None), committed_by(None, 20)]
)
def test_entry_is_closed_after_another_commit(outbox: Outbox, staged: Stage, now: CommittedOffset):
    publish(outbox, staged(FIRST, {0: 1}))
    outbox.record_commits(lambda: {0: now})
    assert pending_frauds(outbox) == {}
    assert outbox.entries() == []


def test_entry_stays_open_while_a_partition_may_be_committed(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1, 1: 0}), 1)
    outbox.record_commits(lambda: {0: CommittedOffset(10), 1: committed_by(FIRST)})
    assert outbox.entries() == [FIRST]


def test_entry_that_is_opened_while_offsets_are_read_stays_open(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1}))
    second = staged(SECOND, {0: 1})

    def read() -> dict[int, CommittedOffset]:
        publish(outbox, second)
        return {0: committed_by(None, 5)}

    outbox.record_commits(read)
    assert outbox.entries() == [SECOND]


def test_partitions_without_a_read_offset_keep_the_entry_open(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1, 1: 1}))
    outbox.record_commits(lambda: {0: committed_by(SECOND, 20)})
    assert outbox.entries() == [FIRST]


def test_report_of_committed_partitions_stays_pending_after_another_commit(outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1, 1: 1}), 0)
    outbox.record_commits(lambda: {0: committed_by(SECOND, 20), 1: committed_by(SECOND, 20)})
    (report,) = outbox.pending_reports()
    assert report.facts.ranges == (("topic", 0, 10, 13),)
    outbox.record_delivery(report, DELIVERY)
    outbox.record_commits(lambda: {0: committed_by(SECOND, 20), 1: committed_by(SECOND, 20)})
    assert outbox.entries() == []


def test_unreadable_batch_stays_pending(
    outbox: Outbox, staged: Stage, folder: Storage, monkeypatch: pytest.MonkeyPatch
):
    publish(outbox, staged(FIRST, {0: 1}), 0)
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "read", unreadable)
        assert pending_frauds(outbox) == {}
        assert outbox.pending_batches() == list(outbox.unreadable()) == [FIRST]
        outbox.record_commits(lambda: {0: committed_by(FIRST)})
    assert list(pending_frauds(outbox)) == [FIRST]
    assert outbox.unreadable() == {}


def unreadable(storage: Storage, path: str) -> bytes | None:
    raise StagingError(f"cannot read {path}: 503 Slow Down")


def test_scoring_does_not_read_batches_that_are_marked_as_committed(
    outbox: Outbox, staged: Stage, monkeypatch: pytest.MonkeyPatch
):
    manifest = staged(FIRST, {0: 1})
    publish(outbox, manifest, 0)
    outbox.record_commits(lambda: {0: committed_by(FIRST)})
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "read", unreadable)
        outbox.record_commits(lambda: {0: committed_by(SECOND, 20)})
        assert outbox.pending_batches() == [FIRST]
    outbox.open_entry(manifest)
    (report,) = outbox.pending_reports()
    outbox.record_delivery(report, DELIVERY)
    assert outbox.entries() == []


@pytest.mark.parametrize("whole", [False, True], ids=["some partition", "all of it"])
@pytest.mark.parametrize("name", ["manifest.json", "scored-0.json"])
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_entry_of_an_unreadable_batch_stays(
    outbox: Outbox, staged: Stage, folder: Storage, tmp_path: Path, harm: str, name: str, whole: bool
):
    lost = staged(FIRST, {0: 1})
    publish(outbox, lost, 0)
    publish(outbox, staged(SECOND, {0: 1}), 0)
    if whole:
        outbox.record_commits(lambda: {0: committed_by(SECOND)})
    file = tmp_path / "staging" / lost.folder / name
    content = file.read_bytes()
    file.unlink() if harm == "missing" else file.write_bytes(content[:-1])
    outbox.record_commits(lambda: {0: committed_by(SECOND)})
    assert list(pending_frauds(outbox)) == [SECOND]
    assert outbox.pending_batches() == [FIRST, SECOND]
    (reason,) = outbox.unreadable().values()
    assert f"{lost.folder}/{name}" in reason
    assert f"is {harm}" in reason
    assert f"delete outbox/a%2Fgroup/topic/{FIRST}*" in reason
    file.write_bytes(content)
    assert list(pending_frauds(outbox)) == [FIRST, SECOND]
    assert outbox.unreadable() == {}


def test_missing_shard_makes_the_batch_unreadable(outbox: Outbox, staged: Stage, folder: Storage):
    manifest = msgspec.structs.replace(staged(FIRST, {0: 1, 1: 1}), shards=((0,), (1,)))
    manifest.save(folder)
    scored = ScoredBatch.load_shard(folder, manifest.folder, 0)
    for shard, scores in enumerate(scored.partitions):
        replace(scored, partitions=(scores,)).save(folder, manifest.folder, shard)
    publish(outbox, manifest, 0)
    folder.delete(f"{manifest.folder}/scored-1.json")
    assert pending_frauds(outbox) == {FIRST: [("topic/0/10", 0)]}
    outbox.record_commit(manifest, 1)
    assert pending_frauds(outbox) == {}
    assert "the scores of committed partitions [1] are missing from " in outbox.unreadable()[FIRST]


def test_groups_and_topics_have_separate_outboxes(folder: Storage, outbox: Outbox, staged: Stage):
    publish(outbox, staged(FIRST, {0: 1}), 0)
    for other in (Outbox(folder, "a", "topic"), Outbox(folder, "a/group", "other")):
        assert other.entries() == []


def test_outbox_works_on_s3(bucket: Storage):
    outbox = Outbox(bucket, "a/group", "topic")
    values: dict[str, Any] = {"run_id": "r", "run_url": "u", "group": "a/group", "topic": "topic", "topic_id": "id"}
    outbox.open_entry(Manifest(batch_id=FIRST, planned_at="now", partitions=(), **values))
    assert outbox.entries() == [FIRST]
