from __future__ import annotations

import pytest

from include.batch.manifest import Manifest, PartitionBatch
from include.batch.offset_change import describe_change
from include.kafka.committed_offsets import CommitNote, CommittedOffset

BATCH, OTHER = "20260102T030405Z-abcdef", "20260102T030400Z-abcdef"
NEXT = "no commit of this batch is known. The next run starts at the committed offset"
PLANNED = f"batch {BATCH} of offsets [5, 9) was planned"


def describe(before: int | None, after: int | None, note: str | None) -> str:
    part = PartitionBatch(2, 5, 9, before)
    manifest = Manifest(BATCH, "r", "u", "g", "topic_1", "id", "2026-01-02T03:04:05+00:00", (part,))
    committed = CommittedOffset(after, None if note is None else CommitNote(note, "id", "now"))
    return describe_change(manifest, part, committed)


@pytest.mark.parametrize(
    ("note", "committer"),
    [
        (None, "another program"),
        ("", "another program"),
        (OTHER, f"batch {OTHER}"),
        ("set by operator anna", "operator 'anna'"),
        ("something\nelse", r"'something\nelse'"),
    ],
)
def test_changed_offset_is_described_with_its_committer(note: str | None, committer: str):
    start = "the committed offset of group g on topic_1/2 is"
    assert describe(5, 7, note) == (
        f"{start} 7, but {PLANNED} when it was 5, and {committer} committed the offset: {NEXT}"
    )
    assert describe(None, 7, note) == (
        f"{start} 7, but {PLANNED} when there was none, and {committer} committed the offset: {NEXT}"
    )
    assert describe(5, 5, note) == (
        f"{start} 5, as when {PLANNED}, but {committer} has committed it again since: {NEXT}"
    )


def test_offset_that_is_gone_is_described_without_a_committer():
    assert describe(5, None, None) == (
        f"the committed offset of group g on topic_1/2 is gone, but {PLANNED} when it was 5: no commit of this batch "
        "is known. The next run's plan says how to choose where it starts"
    )
