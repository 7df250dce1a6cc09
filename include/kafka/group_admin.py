"""Changes to a group's offsets without a batch: after a crash, for an operator, and to keep Kafka from expiring them.

Each partition's offset is committed in a transaction with the same transactional id as a batch's. So a batch in flight
has committed before and is seen, or the broker fences it and it fails because the offset has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from include.errors import ClusterError, FraudError, HangingTransactionError, OffsetsChangedError
from include.kafka.cluster import Topic
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.transaction import Transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OffsetChange:
    """`before` is the committed offset after the fencing, `target` the requested one, `error` why it was not set."""

    partition: int
    before: int | None
    target: int
    error: FraudError | None = None


def recover_offsets(group: ConsumerGroup) -> dict[int, CommittedOffset]:
    """Return the group's committed offsets; first abort the transactions that are open on them, if there are any."""
    try:
        return group.committed_offsets()
    except HangingTransactionError:
        # Most likely an attempt of ours died between adding its offset and its commit. Fencing aborts its transaction.
        log.warning("group %s: a transaction is open on its offsets, so its producers are fenced", group.name)
        fence_producers(group, group.topic.partitions)
        return group.committed_offsets()


def fence_producers(group: ConsumerGroup, partitions: Iterable[int]) -> set[int]:
    """Fence every producer of these partitions, and return the partitions whose producers could not be fenced."""
    unfenced = set()
    for producers in group.fence(sorted(partitions)):
        for partition in producers:
            try:
                producers[partition]
            except ClusterError as error:
                log.warning("%s", error)
                unfenced.add(partition)
    return unfenced


def set_offsets(
    group: ConsumerGroup,
    targets: Mapping[int, int],
    batch: str,
    now: datetime,
    check: Callable[[int, CommittedOffset], None] = lambda partition, committed: None,
) -> list[OffsetChange]:
    """Commit the target offset of each partition, and return the outcomes: a failed partition does not stop the others.

    `batch` becomes the note's batch. `check` gets the partition and its committed offset after the fencing, when no
    batch can change it any more, and raises FraudError to leave that partition alone. Raise GroupInUseError if the
    group has members.
    """
    group.cluster.require_unused_group(group.name)
    note = CommitNote(batch, group.topic.topic_id, _to_text(now))
    changes = []
    for producers in group.fence(sorted(targets)):
        for partition in producers:
            before, target = None, targets[partition]
            try:
                producer = producers[partition]
                current = group.committed_offsets([partition])[partition]
                before = current.offset
                check(partition, current)
                _commit(producer, group, partition, target, note, current)
                changes.append(OffsetChange(partition, before, target))
            except FraudError as error:
                changes.append(OffsetChange(partition, before, target, error))
    return changes


def refresh_offsets(
    group: ConsumerGroup, committed: Mapping[int, CommittedOffset], older_than: timedelta, now: datetime
) -> dict[int, int]:
    """Commit the same offsets again if they were committed longer ago than that, and return them by partition.

    The broker expires a partition's offset some days after its last commit (offsets.retention.minutes), even if the
    group commits other partitions. An offset that changed since it was read, or belongs to an earlier topic of that
    name, is left alone, and so is one that fails.
    """
    due = [partition for partition, offset in committed.items() if _is_due(offset, group.topic, older_than, now)]
    refreshed = {}
    for producers in group.fence(due):
        for partition in producers:
            try:
                producer = producers[partition]
                current = group.committed_offsets([partition])[partition]
                if current.offset is None or _without_time(current) != _without_time(committed[partition]):
                    log.info(
                        "%s/%s: the committed offset has changed, so it is left alone", group.topic.name, partition
                    )
                    continue
                note = CommitNote(current.batch or "", group.topic.topic_id, _to_text(now))
                _commit(producer, group, partition, current.offset, note, current)
            except FraudError as error:
                log.warning("%s/%s: the committed offset was not refreshed: %s", group.topic.name, partition, error)
                continue
            refreshed[partition] = current.offset
    if due:
        log.info("%s: committed offsets refreshed of partitions %s", group.topic.name, sorted(refreshed))
    return refreshed


def _is_due(committed: CommittedOffset, topic: Topic, older_than: timedelta, now: datetime) -> bool:
    if committed.offset is None:
        return False
    if committed.note is None:
        return True
    if committed.note.topic_id != topic.topic_id:
        return False
    try:
        at = datetime.fromisoformat(committed.note.at)
    except ValueError:
        return True
    # A time without a zone cannot be compared with one that has a zone.
    return now - (at if at.tzinfo else at.replace(tzinfo=UTC)) > older_than


def _without_time(committed: CommittedOffset) -> CommittedOffset:
    note = committed.note
    return committed if note is None else replace(committed, note=CommitNote(note.batch, note.topic_id, ""))


def _commit(
    producer: Producer, group: ConsumerGroup, partition: int, offset: int, note: CommitNote, before: CommittedOffset
) -> None:
    Transaction(producer, group, partition).run((), offset, note)
    current = group.await_commit(partition, offset, note, before)
    if current.note != note:
        raise OffsetsChangedError(
            f"{group.topic.name}/{partition}: offset {offset} was committed, and another program committed "
            f"{current.offset} after it. Stop that program, then run the command again"
        )


def _to_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds")
