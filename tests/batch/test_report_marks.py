"""Marks of reports: written before the mail, and after its acceptance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.report.report import PendingReport, message_id
from include.storage.staging import Storage
from tests.support.scoring import DELIVERY

Stage = Callable[..., Manifest]
BATCH = "20260101T000000Z-aaaaaa"


@pytest.fixture
def outbox(folder: Storage) -> Outbox:
    return Outbox(folder, "a/group", "topic", "scored")


def publish(outbox: Outbox, manifest: Manifest, *partitions: int) -> None:
    outbox.open_entry(manifest)
    for partition in partitions:
        outbox.record_commit(manifest, partition)


def partitions(report: PendingReport) -> list[int]:
    return [partition for _, partition, _, _ in report.facts.ranges]


def test_report_that_was_begun_stays_pending_with_the_same_message_id(outbox: Outbox, staged: Stage):
    publish(outbox, staged(BATCH, {0: 1, 1: 1}), 0, 1)
    (report,) = outbox.pending_reports()
    assert outbox.begin_report(report)
    (again,) = outbox.pending_reports()
    assert message_id(again.facts) == message_id(report.facts)
    assert outbox.begin_report(again)
    outbox.record_delivery(again, DELIVERY)
    assert list(outbox.pending_reports()) == outbox.entries() == []


def test_later_commit_does_not_change_the_message_id(outbox: Outbox, staged: Stage):
    """The server may have accepted the first mail: the second mail must not look like another report."""
    manifest = staged(BATCH, {0: 1, 1: 1})
    publish(outbox, manifest, 1)
    (report,) = outbox.pending_reports()
    outbox.begin_report(report)
    outbox.record_commit(manifest, 0)
    first, second = outbox.pending_reports()
    assert message_id(first.facts) == message_id(report.facts)
    assert (partitions(first), partitions(second)) == ([1], [0])
    for one in (first, second):
        assert outbox.begin_report(one)
        outbox.record_delivery(one, DELIVERY)
    assert list(outbox.pending_reports()) == outbox.entries() == []


def test_one_file_records_the_delivery_of_all_partitions(
    outbox: Outbox, staged: Stage, folder: Storage, monkeypatch: pytest.MonkeyPatch
):
    """With a file for each partition, a kill between two files would leave a second report of the rest."""
    manifest = staged(BATCH, {0: 1, 1: 1, 2: 0})
    publish(outbox, manifest, 0, 1, 2)
    (report,) = outbox.pending_reports()
    outbox.begin_report(report)
    write, written = Storage.write, []

    def killed_after_one(self: Storage, path: str, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        write(self, path, data)
        written.append(path)

    with monkeypatch.context() as killed:
        killed.setattr(Storage, "write", killed_after_one)
        with pytest.raises(KeyboardInterrupt):
            outbox.record_delivery(report, DELIVERY)
    assert list(outbox.pending_reports()) == []
    assert [name for name in folder.list(manifest.folder) if name.startswith("report")] == ["report-0.json"]


def test_report_that_another_sender_has_mailed_is_not_begun(outbox: Outbox, staged: Stage, folder: Storage):
    publish(outbox, staged(BATCH, {0: 1}), 0)
    (mine,) = outbox.pending_reports()
    (theirs,) = outbox.pending_reports()
    outbox.begin_report(theirs)
    # The entry may still be open, because a publisher has not finished.
    outbox.record_delivery(theirs, DELIVERY)
    assert not outbox.begin_report(mine)


def test_report_of_other_partitions_than_were_begun_is_not_mailed(outbox: Outbox, staged: Stage):
    manifest = staged(BATCH, {0: 1, 1: 1})
    publish(outbox, manifest, 0)
    (narrow,) = outbox.pending_reports()
    outbox.record_commit(manifest, 1)
    (wide,) = outbox.pending_reports()
    assert outbox.begin_report(wide)
    assert not outbox.begin_report(narrow)


@pytest.mark.parametrize("content", [b"", msgspec.json.encode(DELIVERY)], ids=["empty", "with its delivery"])
def test_delivery_of_an_earlier_version_is_not_mailed_again(
    outbox: Outbox, staged: Stage, folder: Storage, content: bytes
):
    manifest = staged(BATCH, {0: 1, 1: 1})
    publish(outbox, manifest, 0, 1)
    folder.write(f"{manifest.folder}/reported-0", content)
    (report,) = outbox.pending_reports()
    assert partitions(report) == [1]
    outbox.begin_report(report)
    outbox.record_delivery(report, DELIVERY)
    assert list(outbox.pending_reports()) == outbox.entries() == []


def test_damaged_mark_makes_the_batch_unreadable(outbox: Outbox, staged: Stage, tmp_path: Path):
    manifest = staged(BATCH, {0: 1, 1: 1})
    publish(outbox, manifest, 0)
    (report,) = outbox.pending_reports()
    outbox.record_delivery(report, DELIVERY)
    outbox.record_commit(manifest, 1)
    (tmp_path / "staging" / manifest.folder / "report-0.json").write_bytes(b"damaged")
    assert list(outbox.pending_reports()) == []
    assert f"{manifest.folder}/report-0.json" in outbox.unreadable()[BATCH]


def test_marks_work_on_s3(bucket: Storage, folder: Storage, staged: Stage):
    manifest = staged(BATCH, {0: 1})
    for name in ("manifest.json", "scored-0.json"):
        bucket.write(f"{manifest.folder}/{name}", folder.need(f"{manifest.folder}/{name}"))
    outbox = Outbox(bucket, "a/group", "topic")
    publish(outbox, manifest, 0)
    (report,) = outbox.pending_reports()
    assert outbox.begin_report(report)
    (again,) = outbox.pending_reports()
    outbox.record_delivery(again, DELIVERY)
    assert list(outbox.pending_reports()) == outbox.entries() == []
