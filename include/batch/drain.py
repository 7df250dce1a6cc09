"""Step `drain`: read the planned offset ranges, and stage payments and dead letters. It commits nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from operator import attrgetter, methodcaller
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, Message

from include.batch import chunks
from include.batch.background_writer import BackgroundWriter
from include.batch.claims import is_claimed
from include.batch.manifest import Drained, Manifest, PartitionBatch
from include.batch.scored_batch import ScoredBatch
from include.errors import BatchSupersededError
from include.kafka.cluster import Cluster
from include.kafka.headers import headers_of
from include.kafka.range_reader import read_ranges
from include.payments.decode import Decoder, Record
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)

# Memory for rows that are not staged yet, of all partitions together.
_MAX_BUFFERED_ROWS = 50_000
_MAX_BUFFERED_BYTES = chunks.MAX_BUFFERED_BYTES
# Approximate overhead per row, in bytes. A message without a value takes memory as well.
_ROW_BYTES = 200
# With these, map() reads many messages faster than a loop.
_OFFSET, _KEY, _VALUE = methodcaller("offset"), methodcaller("key"), methodcaller("value")


def drain(cluster: Cluster, settings: Settings, storage: Storage, manifest: Manifest, shard: int = 0) -> Drained:
    """Read and stage the partitions of one shard of a planned batch, until FRAUD_MAX_SECONDS.

    It may be repeated: once publishing has begun, return what was staged before. Raise BatchSupersededError if a newer
    run has taken over the payments, ClusterError, or StagingError.
    """
    if ScoredBatch.publishing_has_begun(storage, manifest.folder):
        return manifest.load_drained(storage, shard)
    if not is_claimed(storage, manifest):
        raise BatchSupersededError(
            f"batch {manifest.batch_id} of {manifest.topic} is not drained: newer runs have taken over its payments. "
            "Nothing needs to be done"
        )
    began, parts = time.monotonic(), manifest.shard_partitions(shard)
    with cluster.consumer(settings.group) as consumer:
        drained = _read_and_stage(cluster, consumer, settings, storage, manifest, parts)
    drained = replace(drained, seconds=round(time.monotonic() - began, 3))
    manifest.save_drained(storage, shard, drained)
    return drained


class _PartitionBuffer:
    """The rows of one partition that are not staged yet: its next chunk. `part` counts what is staged."""

    def __init__(self, part: PartitionBatch) -> None:
        self.part = part
        self.columns = chunks.Columns()
        self.bytes = 0
        self.next_offset = part.start

    @property
    def rows(self) -> int:
        return len(self.columns.offset)

    def add(self, messages: list[Message], decoder: Decoder) -> Iterator[None]:
        """Decode messages and add their rows. Yield whenever the caller should check the limits of memory.

        Messages with one payment in a known order of columns are added many at once. Any other message is added alone,
        because it may hold thousands of rows and megabytes.
        """
        values, begin, count = list(map(_VALUE, messages)), 0, len(messages)
        if decoder.halves(values[0]) is None:
            # Decode it first: the decoder may learn from it the order of columns that the others have too.
            self.bytes += _add_results(self.columns, messages[0], values[0], decoder)
            yield
            begin = 1
        halves = [None] * begin + [decoder.halves(value) for value in values[begin:]]
        others = [index for index in range(begin, count) if halves[index] is None]
        for index in (*others, count):
            if begin < index:
                self._add_payments(messages[begin:index], values[begin:index], halves[begin:index])
                yield
            if index < count:
                self.bytes += _add_results(self.columns, messages[index], values[index], decoder)
                yield
            begin = index + 1
        first, last = messages[0], messages[-1]
        self.next_offset = (last.offset() or 0) + 1
        self.part = replace(
            self.part,
            oldest=_timestamp(first) if self.part.oldest is None else self.part.oldest,
            newest=_timestamp(last) or self.part.newest,
        )

    def _add_payments(self, messages: list[Message], values: list[Any], halves: list[Any]) -> None:
        """Add messages with one payment each. `halves` has its head and tail: the text around the prediction."""
        count, columns = len(messages), self.columns
        keys, headers = list(map(_KEY, messages)), _pack_headers(messages)
        self.bytes += count * _ROW_BYTES + sum(map(len, values)) + _total_length(keys) + _total_length(headers)
        heads, tails = zip(*halves, strict=True)
        columns.offset += map(_OFFSET, messages)
        columns.row += repeat(0, count)
        columns.key += keys
        columns.value += values
        columns.headers += headers
        columns.head += heads
        columns.tail += tails
        columns.reason += repeat(None, count)

    def take_chunk(self) -> tuple[int, int, chunks.Columns]:
        """Empty the buffer, and return the chunk to write: partition, number and columns."""
        columns, part = self.columns, self.part
        dead_letters = len(columns.reason) - columns.reason.count(None)
        self.part = replace(
            part,
            chunks=part.chunks + 1,
            payments=part.payments + len(columns.offset) - dead_letters,
            dead_letters=part.dead_letters + dead_letters,
        )
        self.columns, self.bytes = chunks.Columns(), 0
        return part.partition, part.chunks, columns


def _read_and_stage(
    cluster: Cluster,
    consumer: Consumer,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    parts: Sequence[PartitionBatch],
) -> Drained:
    buffers = {part.partition: _PartitionBuffer(part) for part in parts}
    decoder = Decoder()
    ranges = {part.partition: (part.start, part.end) for part in parts}
    # Totals of all buffers, without the one that is being filled.
    rows = size = 0
    deadline, in_time = time.monotonic() + settings.max_seconds, True
    folder = manifest.new_attempt_folder()
    # Native code writes Parquet, so the next messages are decoded at the same time.
    with chunks.paused_collector(), BackgroundWriter() as writer:
        for partition, messages in read_ranges(cluster, consumer, manifest.topic, ranges):
            buffer = buffers[partition]
            rows, size = rows - buffer.rows, size - buffer.bytes
            for _ in buffer.add(messages, decoder):
                while rows + buffer.rows >= _MAX_BUFFERED_ROWS or size + buffer.bytes >= _MAX_BUFFERED_BYTES:
                    # Only the fullest, so that many partitions make few and large files.
                    fullest = max(buffers.values(), key=attrgetter("bytes", "rows"))
                    if fullest is not buffer:
                        rows, size = rows - fullest.rows, size - fullest.bytes
                    writer.submit(chunks.write_payments, storage, folder, *fullest.take_chunk())
            rows, size = rows + buffer.rows, size + buffer.bytes
            if time.monotonic() > deadline:
                in_time = False
                break
        for buffer in buffers.values():
            if buffer.rows:
                writer.submit(chunks.write_payments, storage, folder, *buffer.take_chunk())
    read = [
        replace(buffer.part, staged=folder, end=buffer.part.end if in_time else buffer.next_offset)
        for buffer in buffers.values()
    ]
    left = sum(part.end for part in parts) - sum(part.end for part in read)
    if left:
        log.info("%d offsets are left for the next run: reading ended after %g seconds", left, settings.max_seconds)
    return Drained(
        tuple(part for part in read if part.needs_commit),
        left,
        tuple(sorted(decoder.columns_seen)),
        decoder.all_columns_known,
    )


def _add_results(columns: chunks.Columns, message: Message, value: bytes | None, decoder: Decoder) -> int:
    """Add the rows of any message to the columns, and return approximately how many bytes of memory they take."""
    offset, key, (headers,) = message.offset(), message.key(), _pack_headers([message])
    size = len(value or b"") + _total_length([headers])
    for result in decoder.decode(value, len(key or b"")):
        size += _ROW_BYTES + _total_length([key])
        columns.offset.append(offset or 0)
        columns.row.append(result.row)
        columns.key.append(key)
        columns.value.append(value)
        columns.headers.append(headers)
        # Only the first row has the message's value and headers: a large message would be staged thousands of times.
        value = headers = None
        if isinstance(result, Record):
            size += len(result.head) + len(result.tail)
            columns.head.append(result.head)
            columns.tail.append(result.tail)
            columns.reason.append(None)
        else:
            columns.head.append(None)
            columns.tail.append(None)
            columns.reason.append(str(result.refusal))
    return size


def _total_length(texts: list[bytes | None]) -> int:
    return sum(len(text) for text in texts if text)


def _pack_headers(messages: list[Message]) -> list[bytes | None]:
    headers = [headers_of(message) for message in messages]
    return list(map(chunks.pack_headers, headers)) if any(headers) else [None] * len(messages)


def _timestamp(message: Message) -> int | None:
    """Return the Kafka timestamp in milliseconds, None if the message has none."""
    kind, milliseconds = message.timestamp()
    return milliseconds if kind != TIMESTAMP_NOT_AVAILABLE else None
