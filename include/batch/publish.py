"""Step 4: one kafka transaction per partition: predictions and dead letters out and the offset on, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from confluent_kafka import Consumer, Producer, TopicPartition

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch, is_batch_id
from include.batch.outbox import Outbox
from include.batch.outgoing import OutgoingMessages
from include.batch.progress import Progress
from include.batch.scored import ScoredBatch
from include.batch.storage import Storage
from include.errors import (
    FraudError,
    OffsetsChangedError,
    TopicChangedError,
)
from include.kafka import offsets
from include.kafka.config import Settings as KafkaSettings
from include.kafka.config import consumer_settings
from include.kafka.offsets import CommitNote, Committed
from include.kafka.transaction import Outgoing, Transaction, fence
from include.settings import Settings

log = logging.getLogger(__name__)


class Outcome(Enum):
    PUBLISHED = "published"
    ALREADY_PUBLISHED = "already published"
    PUBLISHED_BY_ANOTHER = "published by another batch"


@dataclass(frozen=True)
class Published:
    """Outcome by partition, how many messages this attempt sent, and the newest payment's Kafka timestamp."""

    outcomes: dict[int, Outcome]
    predictions: int
    dead_letters: int
    newest: int | None = None


def publish(
    kafka: KafkaSettings,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    reached: Callable[[str], None] = lambda point: None,
    shard: int = 0,
) -> Published:
    """Safe to repeat at any time. `reached` hears each point of the protocol as it is passed."""
    manifest = Manifest.load(storage, manifest.batch_id)
    scored = ScoredBatch.load_shard(storage, manifest.folder, shard)
    parts = scored.parts_of(manifest)
    outbox = Outbox(storage, manifest.group, manifest.topic)
    topic = offsets.describe_topic(offsets.admin_client(kafka), kafka, manifest.topic)
    if topic.topic_id != manifest.topic_id:
        raise TopicChangedError(
            f"{manifest.topic} was deleted and made again (id {manifest.topic_id}, now {topic.topic_id}) after this "
            "batch was drained; the next run's drain asks where to begin"
        )
    outbox.open_entry(manifest)
    reached("before fence")
    producers = fence(kafka, manifest.group, manifest.topic, [part.partition for part in parts])
    consumer = Consumer(consumer_settings(kafka, manifest.group))
    progress = Progress(storage, manifest.group)
    outcomes: dict[int, Outcome] = {}
    errors: list[FraudError] = []
    try:
        for part in parts:
            try:
                producer = producers[part.partition]
                # Read after the fence: no older attempt can move it any more.
                committed = offsets.committed_offsets(consumer, kafka, manifest.topic, [part.partition])[part.partition]
                outcome = _outcome_so_far(manifest, part, committed, outbox)
                if outcome is None:
                    messages = OutgoingMessages(settings, storage, manifest, scored, part)
                    _publish_partition(kafka, manifest, part, messages, producer, consumer, reached)
                    outcome = Outcome.PUBLISHED
                if outcome is not Outcome.PUBLISHED_BY_ANOTHER:
                    outbox.note_commit(manifest, part.partition)
                progress.note(topic, part.partition, part.end)
            except FraudError as error:
                # The others go on: what is wrong with one partition must not hold them up, now or in any later run.
                log.error("%s/%s [%s, %s): %s", manifest.topic, part.partition, part.start, part.end, error)
                errors.append(error)
                continue
            outcomes[part.partition] = outcome
            log.info("%s/%s [%s, %s): %s", manifest.topic, part.partition, part.start, part.end, outcome.value)
    finally:
        consumer.close()
    _raise_together(errors)
    sent = [part for part in scored.partitions if outcomes.get(part.partition) is Outcome.PUBLISHED]
    return Published(
        outcomes,
        sum(part.scored for part in sent),
        sum(part.dead_letters for part in sent),
        max((part.newest for part in parts if part.newest is not None), default=None),
    )


def _raise_together(errors: list[FraudError]) -> None:
    """As one error that says all; permanent only if each is, for a retry may mend the others."""
    if not errors:
        return
    leading = next((error for error in errors if not error.permanent), errors[0])
    if len(errors) == 1:
        raise leading
    raise type(leading)("; ".join(str(error) for error in errors)) from leading


def _outcome_so_far(manifest: Manifest, part: PartitionBatch, now: Committed, outbox: Outbox) -> Outcome | None:
    """None where this batch is to be published now."""
    if now.offset == part.committed_before:
        return None
    if (now.note is not None and now.note.batch == manifest.batch_id) or outbox.is_committed(manifest, part.partition):
        return Outcome.ALREADY_PUBLISHED
    # Whoever else commits this offset, an operator or a foreign consumer, has published nothing.
    if now.offset == part.end and now.note is not None and is_batch_id(now.note.batch):
        return Outcome.PUBLISHED_BY_ANOTHER
    raise OffsetsChangedError(
        f"group {manifest.group} stands at {now.offset} on {manifest.topic}/{part.partition}, but batch "
        f"{manifest.batch_id} of offsets [{part.start}, {part.end}) was drained from {part.committed_before}"
        f"{_committed_by(now)}: no commit of this batch is known. The next run drains from where the group stands"
    )


def _committed_by(now: Committed) -> str:
    if now.offset is None:
        return ""
    if now.note is None:
        return ", and another program committed the offset"
    by = f"batch {now.note.batch}" if is_batch_id(now.note.batch) else f"{now.note.batch!r}"
    return f", and the offset was committed by {by}"


def _publish_partition(
    kafka: KafkaSettings,
    manifest: Manifest,
    part: PartitionBatch,
    messages: Iterable[Outgoing],
    producer: Producer,
    consumer: Consumer,
    reached: Callable[[str], None],
) -> None:
    place = TopicPartition(manifest.topic, part.partition, part.end)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = CommitNote(batch=manifest.batch_id, topic_id=manifest.topic_id, at=now)
    reached("before transaction")
    with chunks.paused_collector():
        Transaction(producer, kafka, consumer, place).run(messages, part.end, note, reached)
    offsets.await_committed(consumer, kafka, place, note)
