"""Describe a change of a committed offset after a batch was planned, which keeps the batch from being published."""

from __future__ import annotations

from include.batch.batch_id import is_batch_id
from include.batch.manifest import Manifest, PartitionBatch
from include.kafka.committed_offsets import SET_BY_OPERATOR, CommittedOffset


def describe_change(manifest: Manifest, part: PartitionBatch, committed: CommittedOffset) -> str:
    """Return why the batch does not publish a partition: its committed offset, or only the note, has changed since."""
    planned = f"batch {manifest.batch_id} of offsets [{part.start}, {part.end}) was planned"
    before = "there was none" if part.committed_before is None else f"it was {part.committed_before}"
    committer = describe_committer(committed)
    remedy = "The next run starts at the committed offset"
    if committed.offset is None:
        change = f"gone, but {planned} when {before}"
        remedy = "The next run's plan says how to choose where it starts"
    elif committed.offset == part.committed_before:
        change = f"{committed.offset}, as when {planned}, but {committer} has committed it again since"
    else:
        change = f"{committed.offset}, but {planned} when {before}, and {committer} committed the offset"
    return (
        f"the committed offset of group {manifest.group} on {manifest.topic}/{part.partition} is {change}: no commit "
        f"of this batch is known. {remedy}"
    )


def describe_committer(committed: CommittedOffset) -> str:
    """Return who committed an offset, by its note: a batch, an operator, or another program.

    Another program leaves no note. If `plan` has refreshed its offset, there is a note, whose `batch` is empty.
    """
    name = committed.batch
    if not name:
        return "another program"
    if is_batch_id(name):
        return f"batch {name}"
    # The quotes of repr() also escape control characters: the name is free text.
    return f"operator {name.removeprefix(SET_BY_OPERATOR)!r}" if name.startswith(SET_BY_OPERATOR) else repr(name)
