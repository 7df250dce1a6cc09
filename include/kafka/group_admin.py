"""A group's offsets without a batch: read after a crash, set by an operator, refreshed before Kafka expires them.

Setting and refreshing commit one partition's offset in a transaction with the transactional id that batches use. So a
batch that is being published either commits first, and the change reads its offset, or it is fenced and fails.
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
    """The outcome for a partition: the committed offset before, the requested `target`, and the error, if any.

    After an error, read the committed offset to learn whether `target` was committed: it may be, for example if the
    broker stopped answering after the commit.
    """

    partition: int
    before: int | None
    target: int
    error: FraudError | None = None


def recover_offsets(group: ConsumerGroup) -> dict[int, CommittedOffset]:
    """Return the group's committed offsets. If a crash left transactions open on them, abort those first."""
    try:
        return group.committed_offsets()
    except HangingTransactionError:
        # An attempt of ours probably died between adding its offset and committing it. Fencing aborts its transaction.
        log.warning(
            "group %s: a transaction is open on its offsets, so the producers that commit them are fenced", group.name
        )
        fence_producers(group, group.topic.partitions)
        return group.committed_offsets()


def fence_producers(group: ConsumerGroup, partitions: Iterable[int]) -> set[int]:
    """Fence the producers that have the partitions' transactional ids. Return the partitions for which that failed."""
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
    """Commit the target offset of each partition and return the outcomes. A failed partition does not stop the others.

    `batch` is the text for the commit note. `check` receives a partition and its committed offset after fencing, when
    no batch can change it any more; it raises FraudError to skip that partition. Raise GroupInUseError if the group has
    members.
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
                _commit(producer, group, partition, target, note, current, "then run the command again")
                changes.append(OffsetChange(partition, before, target))
            except FraudError as error:
                changes.append(OffsetChange(partition, before, target, error))
    return changes


def refresh_offsets(
    group: ConsumerGroup, committed: Mapping[int, CommittedOffset], older_than: timedelta, now: datetime
) -> dict[int, int]:
    """Commit again the offsets that are due, and return those that were committed without an error, by partition.

    An offset is due if its commit note is older than `older_than`, or if it has no note with a valid time. `committed`
    are the offsets that were read before. The broker expires a partition's offset some days after its last commit
    (offsets.retention.minutes), even if the group commits other partitions.

    An offset of a deleted topic of that name is not due. An offset that changed since it was read is skipped. An error
    is logged, and the next partition follows.
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
                _commit(producer, group, partition, current.offset, note, current, "the next run refreshes the offset")
            except FraudError as error:
                log.warning("%s/%s: refreshing the committed offset failed: %s", group.topic.name, partition, error)
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
    producer: Producer,
    group: ConsumerGroup,
    partition: int,
    offset: int,
    note: CommitNote,
    before: CommittedOffset,
    next_step: str,
) -> None:
    """Commit an offset. Raise OffsetsChangedError if another program commits too; `next_step` ends its text."""
    Transaction(producer, group, partition).run((), offset, note)
    current = group.await_commit(partition, offset, note, before)
    if current.note != note:
        raise OffsetsChangedError(
            f"{group.topic.name}/{partition}: offset {offset} was committed, and another program committed "
            f"{current.offset} after it. Stop that program; {next_step}"
        )


def _to_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds")
