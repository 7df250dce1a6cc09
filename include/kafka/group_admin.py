"""Where the group stands, and commits of it without publishing: for an operator who moves it, and to keep it known.

Each partition's offset goes through a kafka transaction of its own under the same id as a batch's. So a batch in flight
is either through before, and seen, or shut out by the broker and told that the offsets have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from confluent_kafka import Consumer, Producer, TopicPartition

from include.errors import FraudError, HangingTransactionError, KafkaError, OffsetsChangedError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, consumer_settings
from include.kafka.committed_offsets import (
    CommitNote,
    Committed,
    Topic,
    await_committed,
    read_committed_offsets,
    require_unused_group,
)
from include.kafka.transaction import Transaction, fence_in_slices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OffsetMove:
    """`before` is where the group stood when its older producers were shut out; `error` is why it stays there."""

    partition: int
    before: int | None
    to: int
    error: FraudError | None = None


def settled_offsets(client: ClientConfig, consumer: Consumer, group: str, topic: Topic) -> dict[int, Committed]:
    """The group's committed offsets; where a kafka transaction is open on them, after its producer was shut out."""
    try:
        return read_committed_offsets(consumer, client, topic.name, topic.partitions)
    except HangingTransactionError:
        # Most likely an attempt of ours that died between adding its offset and its commit: taking over its id ends it.
        log.warning("a kafka transaction is open on the offsets of group %s: taking over its producers", group)
        fence_all(client, group, topic.name, topic.partitions)
        return read_committed_offsets(consumer, client, topic.name, topic.partitions)


def fence_all(client: ClientConfig, group: str, topic: str, partitions: Iterable[int]) -> set[int]:
    """Fence every producer of these partitions, and return the partitions whose producers could not be fenced."""
    unfenced = set()
    for producers in fence_in_slices(client, group, topic, sorted(partitions)):
        for partition in producers:
            try:
                producers[partition]
            except KafkaError as error:
                log.warning("%s/%s: its producers could not be fenced: %s", topic, partition, error)
                unfenced.add(partition)
    return unfenced


def move(
    client: ClientConfig,
    group: str,
    topic: Topic,
    to: Mapping[int, int],
    batch: str,
    now: datetime,
    seen: Callable[[int, Committed], None] = lambda partition, committed: None,
) -> list[OffsetMove]:
    """Sets the group's offsets; what fails with one partition does not hold up the others.

    Raises GroupInUseError while the group has members. `batch` stands in the note beside the offset. `seen` hears what
    stood there last, once nobody else can commit any more and before it is overwritten.
    """
    require_unused_group(Admin(client), client, group)
    note = CommitNote(batch, topic.topic_id, _text(now))
    consumer = Consumer(consumer_settings(client, group))
    moved = []
    try:
        for producers in fence_in_slices(client, group, topic.name, sorted(to)):
            for partition in producers:
                before, offset = None, to[partition]
                try:
                    producer = producers[partition]
                    found = read_committed_offsets(consumer, client, topic.name, [partition])[partition]
                    before = found.offset
                    seen(partition, found)
                    _commit(producer, client, consumer, TopicPartition(topic.name, partition, offset), note, found)
                    moved.append(OffsetMove(partition, before, offset))
                except FraudError as error:
                    moved.append(OffsetMove(partition, before, offset, error))
    finally:
        consumer.close()
    return moved


def keep_alive(
    client: ClientConfig,
    consumer: Consumer,
    group: str,
    topic: Topic,
    committed: Mapping[int, Committed],
    older_than: timedelta,
    now: datetime,
) -> dict[int, int]:
    """Commits the same offsets again where that was long ago, or nobody knows when; returns those, by partition.

    Kafka forgets each partition's offset some days after its own last commit, however busy the others are. An offset
    that moved since it was read, or belongs to an earlier topic of that name, is left alone; so is one that fails.
    """
    due = [partition for partition, at in committed.items() if _is_due(at, topic, older_than, now)]
    if not due:
        return {}
    kept = {}
    for producers in fence_in_slices(client, group, topic.name, due):
        for partition in producers:
            read = committed[partition]
            try:
                producer = producers[partition]
                found = read_committed_offsets(consumer, client, topic.name, [partition])[partition]
                if found.offset is None or _without_time(found) != _without_time(read):
                    log.info("%s/%s: the committed offset has moved, it is left alone", topic.name, partition)
                    continue
                note = CommitNote(found.note.batch if found.note else "", topic.topic_id, _text(now))
                _commit(producer, client, consumer, TopicPartition(topic.name, partition, found.offset), note, found)
            except FraudError as error:
                log.warning("%s/%s: the committed offset could not be kept alive: %s", topic.name, partition, error)
                continue
            kept[partition] = found.offset
    log.info("%s: committed offsets kept alive of partitions %s", topic.name, sorted(kept))
    return kept


def _is_due(at: Committed, topic: Topic, older_than: timedelta, now: datetime) -> bool:
    if at.offset is None:
        return False
    if at.note is None:
        return True
    if at.note.topic_id != topic.topic_id:
        return False
    try:
        committed_at = datetime.fromisoformat(at.note.at)
    except ValueError:
        return True
    # A time without a zone cannot be compared.
    return now - (committed_at if committed_at.tzinfo else committed_at.replace(tzinfo=UTC)) > older_than


def _without_time(committed: Committed) -> Committed:
    return (
        committed
        if committed.note is None
        else replace(committed, note=CommitNote(committed.note.batch, committed.note.topic_id, ""))
    )


def _commit(
    producer: Producer,
    client: ClientConfig,
    consumer: Consumer,
    place: TopicPartition,
    note: CommitNote,
    found: Committed,
) -> None:
    Transaction(producer, client, consumer, place).run((), place.offset, note)
    seen = await_committed(consumer, client, place, note, found)
    if seen.note != note:
        raise OffsetsChangedError(
            f"{place.topic}/{place.partition}: offset {place.offset} was committed, and another program committed "
            f"{seen.offset} at the same time"
        )


def _text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds")
