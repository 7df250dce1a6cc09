"""Step 1: fixes the batch's offset ranges, reads exactly them and stages payments and dead letters. Commits nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import methodcaller

from confluent_kafka import Consumer, Message

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch, new_batch_id
from include.batch.outbox import Outbox
from include.batch.progress import Progress
from include.batch.storage import Storage
from include.errors import HangingTransactionError, TopicChangedError
from include.kafka import offsets
from include.kafka.config import Settings as KafkaSettings
from include.kafka.config import consumer_settings
from include.kafka.offsets import Committed, Topic
from include.kafka.reader import read_ranges
from include.kafka.transaction import Headers, fence
from include.payments.decode import Decoder, Record
from include.settings import Settings

log = logging.getLogger(__name__)

# What is held in memory before it is staged, over all partitions.
_CHUNK_PAYMENTS = 50_000
_CHUNK_BYTES = 64_000_000
# Where the client fails to read a header's name it sets an error and returns a broken list all the same. Calls from C
# notice; a method that is called often enough from Python does not, and the broken list ends the process.
_READ_HEADERS = methodcaller("headers")


def drain(kafka: KafkaSettings, settings: Settings, storage: Storage, *, run_id: str, run_url: str) -> Manifest:
    """The batch that waits now; its manifest has no partitions where nothing does."""
    now = datetime.now(UTC)
    admin = offsets.admin_client(kafka)
    offsets.require_unused_group(admin, kafka, settings.group)
    topic = offsets.describe_topic(admin, kafka, settings.input_topic)
    consumer = Consumer(consumer_settings(kafka, settings.group))
    try:
        committed = _settled_offsets(consumer, kafka, settings.group, topic)
        # Before a newer batch overwrites it: the note beside an offset may be the only trace of an earlier one.
        Outbox(storage, settings.group, topic.name).note_commits(committed)
        parts, lag = _fix_ranges(consumer, kafka, settings, topic, committed, Progress(storage, settings.group))
        manifest = Manifest(
            batch_id=new_batch_id(now),
            run_id=run_id,
            run_url=run_url,
            group=settings.group,
            topic=topic.name,
            topic_id=topic.topic_id,
            drained_at=now.isoformat(timespec="seconds"),
            partitions=tuple(parts),
            lag=lag,
        )
        if parts:
            manifest = _stage(consumer, kafka, storage, manifest)
            manifest.save(storage)
    finally:
        consumer.close()
    return manifest


def _settled_offsets(consumer: Consumer, kafka: KafkaSettings, group: str, topic: Topic) -> dict[int, Committed]:
    try:
        return offsets.committed_offsets(consumer, kafka, topic.name, topic.partitions)
    except HangingTransactionError:
        # Most likely an attempt of ours that died between adding its offset and its commit: taking over its id ends it.
        log.warning("a kafka transaction is open on the offsets of group %s: taking over its producers", group)
        fence(kafka, group, topic.name, topic.partitions)
        return offsets.committed_offsets(consumer, kafka, topic.name, topic.partitions)


def _fix_ranges(
    consumer: Consumer,
    kafka: KafkaSettings,
    settings: Settings,
    topic: Topic,
    committed: dict[int, Committed],
    progress: Progress,
) -> tuple[list[PartitionBatch], int]:
    """The partitions with something to commit, and how many offsets are left for later runs."""
    parts, lag = [], 0
    for partition in topic.partitions:
        low, stable = offsets.watermarks(consumer, kafka, topic.name, partition)
        now = committed[partition]
        _require_same_topic(settings.group, topic, partition, now, stable, progress)
        start = low if now.offset is None else max(now.offset, low)
        lost = start - now.offset if now.offset is not None else 0
        if lost:
            log.error(
                "%s/%s: %s offsets from %s to %s expired before they were read: the topic's retention is shorter than "
                "this DAG's outage",
                *(topic.name, partition, lost, now.offset, start),
            )
        end = min(stable, start + settings.max_payments)
        lag += stable - end
        if start < end or lost:
            parts.append(PartitionBatch(partition, start, end, now.offset, lost=lost))
    return parts, lag


def _require_same_topic(
    group: str, topic: Topic, partition: int, now: Committed, stable: int, progress: Progress
) -> None:
    place = f"{topic.name}/{partition}"
    mend = (
        f"Decide where group {group} goes on, and set it with `kafka-consumer-groups.sh --reset-offsets --execute "
        f"--group {group} --topic {place.replace('/', ':')} --to-earliest` (or --to-offset N)"
    )
    if now.offset is None:
        reached = progress.reached(topic, partition)
        if reached is not None:
            raise TopicChangedError(
                f"{place}: the group's committed offset is gone; it had reached {reached}. Starting at the earliest "
                f"payment could score everything again. {mend}"
            )
    elif now.note is not None and now.note.topic_id != topic.topic_id:
        raise TopicChangedError(
            f"{place}: the topic was deleted and made again (id {now.note.topic_id}, now {topic.topic_id}) after "
            f"offset {now.offset} was committed. {mend}"
        )
    elif now.offset > stable and now.offset > 0:
        raise TopicChangedError(
            f"{place}: the committed offset {now.offset} is past the topic's end {stable}: the topic was truncated or "
            f"made again, or the offset was set by hand. {mend}"
        )


@dataclass
class _Open:
    """One partition's chunk while it is filled."""

    part: PartitionBatch
    columns: chunks.Columns


def _stage(consumer: Consumer, kafka: KafkaSettings, storage: Storage, manifest: Manifest) -> Manifest:
    opened = {part.partition: _Open(part, chunks.Columns()) for part in manifest.partitions}
    decoder = Decoder()
    ranges = {part.partition: (part.start, part.end) for part in manifest.partitions}
    held = held_bytes = 0
    with chunks.paused_collector():
        for messages in read_ranges(consumer, kafka, manifest.topic, ranges):
            for message in messages:
                value = message.value()
                rows, size = _add(opened[message.partition() or 0].columns, message, value, decoder)
                held += rows
                held_bytes += size
                if held >= _CHUNK_PAYMENTS or held_bytes >= _CHUNK_BYTES:
                    _flush(storage, manifest.folder, opened.values())
                    held = held_bytes = 0
        _flush(storage, manifest.folder, opened.values())
    return replace(
        manifest,
        partitions=tuple(item.part for item in opened.values()),
        # None at all where not all are known: then nobody can say that a column is missing.
        columns=tuple(sorted(decoder.columns_seen)) if decoder.all_columns_known else (),
    )


def _add(columns: chunks.Columns, message: Message, value: bytes | None, decoder: Decoder) -> tuple[int, int]:
    """How many rows it added, and about how many bytes."""
    offset, key, headers = message.offset(), message.key(), chunks.pack_headers(_headers(message))
    results = decoder.decode(value)
    size = len(value or b"")
    for result in results:
        columns.offset.append(offset or 0)
        columns.row.append(result.row)
        columns.key.append(key)
        columns.value.append(value)
        columns.headers.append(headers)
        # A message's further rows share its value and headers: with each row, a large one would be staged thousands
        # of times.
        value = headers = None
        if isinstance(result, Record):
            if result.row:
                size += len(result.head) + len(result.tail)
            columns.head.append(result.head)
            columns.tail.append(result.tail)
            columns.reason.append(None)
        else:
            columns.head.append(None)
            columns.tail.append(None)
            columns.reason.append(str(result.refusal))
    return len(results), size


def _headers(message: Message) -> Headers | None:
    """None also where a header's name is not UTF-8, which this client cannot read: that must not stop all payments."""
    try:
        found: Headers | None = _READ_HEADERS(message)
        return found
    except (SystemError, UnicodeError):
        log.warning(
            "%s/%s/%s: headers left out, a name is not UTF-8", message.topic(), message.partition(), message.offset()
        )
        return None


def _flush(storage: Storage, folder: str, opened: Iterable[_Open]) -> None:
    for item in opened:
        columns, part = item.columns, item.part
        if not columns.offset:
            continue
        chunks.write_payments(storage, folder, part.partition, part.chunks, columns)
        refused = sum(reason is not None for reason in columns.reason)
        item.part = replace(
            part,
            chunks=part.chunks + 1,
            payments=part.payments + len(columns.offset) - refused,
            dead_letters=part.dead_letters + refused,
        )
        item.columns = chunks.Columns()
