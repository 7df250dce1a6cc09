"""Step 2: reads exactly the planned offset ranges and stages payments and dead letters. Commits nothing."""

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

# What is held in memory before it is staged, over all partitions.
_HELD_PAYMENTS = 50_000
_HELD_BYTES = chunks.HELD_BYTES
# Of a row without its bytes, roughly: none is for nothing, not even a message without a value.
_ROW_BYTES = 200
_OFFSET, _KEY, _VALUE = methodcaller("offset"), methodcaller("key"), methodcaller("value")


def drain(cluster: Cluster, settings: Settings, storage: Storage, manifest: Manifest, shard: int = 0) -> Drained:
    """Read and stage one shard's partitions of a planned batch. May be repeated: a batch whose publishing has begun is
    left as it is. Raise BatchSupersededError where a newer run has taken over its payments."""
    if ScoredBatch.has_begun(storage, manifest.folder):
        return manifest.load_drained(storage, shard)
    if not is_claimed(storage, manifest):
        raise BatchSupersededError(
            f"batch {manifest.batch_id} of {manifest.topic} is not drained: newer runs have taken over its payments. "
            "Nothing needs to be done: the next run drains them"
        )
    began, parts = time.monotonic(), manifest.of_shard(shard)
    with cluster.consumer(settings.group) as consumer:
        drained = _stage(cluster, consumer, settings, storage, manifest, parts)
    drained = replace(drained, seconds=round(time.monotonic() - began, 3))
    manifest.save_drained(storage, shard, drained)
    return drained


class _Slot:
    """One partition's part of the batch, and its chunk while it is filled."""

    def __init__(self, part: PartitionBatch) -> None:
        self.part = part
        self.columns = chunks.Columns()
        self.held_bytes = 0
        self.read_to = part.start

    @property
    def held(self) -> int:
        return len(self.columns.offset)

    def add(self, messages: list[Message], decoder: Decoder) -> Iterator[None]:
        """Pauses where its chunk may have to be closed: one message can hold thousands of rows, and as many bytes."""
        values, begin, count = list(map(_VALUE, messages)), 0, len(messages)
        if decoder.halves(values[0]) is None:
            # Before the others are tried, whose order of columns it may make known.
            self.held_bytes += _add_results(self.columns, messages[0], values[0], decoder)
            yield
            begin = 1
        halves = [None] * begin + [decoder.halves(value) for value in values[begin:]]
        for place in (*(place for place in range(begin, count) if halves[place] is None), count):
            if begin < place:
                self._add_records(messages[begin:place], values[begin:place], halves[begin:place])
                yield
            if place < count:
                self.held_bytes += _add_results(self.columns, messages[place], values[place], decoder)
                yield
            begin = place + 1
        first, last = messages[0], messages[-1]
        self.read_to = (last.offset() or 0) + 1
        self.part = replace(
            self.part,
            oldest=_time(first) if self.part.oldest is None else self.part.oldest,
            newest=_time(last) or self.part.newest,
        )

    def _add_records(self, messages: list[Message], values: list[Any], halves: list[Any]) -> None:
        count, columns = len(messages), self.columns
        keys, headers = list(map(_KEY, messages)), _packed_headers(messages)
        self.held_bytes += count * _ROW_BYTES + sum(map(len, values)) + _length(keys) + _length(headers)
        heads, tails = zip(*halves, strict=True)
        columns.offset += map(_OFFSET, messages)
        columns.row += repeat(0, count)
        columns.key += keys
        columns.value += values
        columns.headers += headers
        columns.head += heads
        columns.tail += tails
        columns.reason += repeat(None, count)

    def close_chunk(self) -> tuple[int, int, chunks.Columns]:
        """What is to be written: its partition, its number, and its columns, which are no longer touched here."""
        closed, part = self.columns, self.part
        refused = len(closed.reason) - closed.reason.count(None)
        self.part = replace(
            part,
            chunks=part.chunks + 1,
            payments=part.payments + len(closed.offset) - refused,
            dead_letters=part.dead_letters + refused,
        )
        self.columns, self.held_bytes = chunks.Columns(), 0
        return part.partition, part.chunks, closed


def _stage(
    cluster: Cluster,
    consumer: Consumer,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    parts: Sequence[PartitionBatch],
) -> Drained:
    slots = {part.partition: _Slot(part) for part in parts}
    decoder = Decoder()
    ranges = {part.partition: (part.start, part.end) for part in parts}
    # In all slots together.
    held = held_bytes = 0
    until, in_time = time.monotonic() + settings.max_seconds, True
    # Parquet is written by native code: the next messages are decoded meanwhile.
    staged = manifest.new_attempt()
    with chunks.paused_collector(), BackgroundWriter() as writer:
        for partition, messages in read_ranges(cluster, consumer, manifest.topic, ranges):
            slot = slots[partition]
            held, held_bytes = held - slot.held, held_bytes - slot.held_bytes
            for _ in slot.add(messages, decoder):
                while held + slot.held >= _HELD_PAYMENTS or held_bytes + slot.held_bytes >= _HELD_BYTES:
                    # The fullest only, so that files stay few and large where partitions are many.
                    fullest = max(slots.values(), key=attrgetter("held_bytes", "held"))
                    if fullest is not slot:
                        held, held_bytes = held - fullest.held, held_bytes - fullest.held_bytes
                    writer.submit(chunks.write_payments, storage, staged, *fullest.close_chunk())
            held, held_bytes = held + slot.held, held_bytes + slot.held_bytes
            if time.monotonic() > until:
                in_time = False
                break
        for slot in slots.values():
            if slot.held:
                writer.submit(chunks.write_payments, storage, staged, *slot.close_chunk())
    read = [
        replace(slot.part, staged=staged, end=slot.part.end if in_time else slot.read_to) for slot in slots.values()
    ]
    left = sum(part.end for part in parts) - sum(part.end for part in read)
    if left:
        log.info("%d offsets are left for the next run: reading ended after %g seconds", left, settings.max_seconds)
    return Drained(
        tuple(part for part in read if part.is_due),
        left,
        tuple(sorted(decoder.columns_seen)),
        decoder.all_columns_known,
    )


def _add_results(columns: chunks.Columns, message: Message, value: bytes | None, decoder: Decoder) -> int:
    """Of a message that is not just one clean payment; about how many bytes that is."""
    offset, key, (headers,) = message.offset(), message.key(), _packed_headers([message])
    size = len(value or b"") + _length([headers])
    for result in decoder.decode(value, len(key or b"")):
        size += _ROW_BYTES + _length([key])
        columns.offset.append(offset or 0)
        columns.row.append(result.row)
        columns.key.append(key)
        columns.value.append(value)
        columns.headers.append(headers)
        # A message's further rows share its value and headers: with each row, a large one would be staged thousands
        # of times.
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


def _length(texts: list[bytes | None]) -> int:
    return sum(len(text) for text in texts if text)


def _packed_headers(messages: list[Message]) -> list[bytes | None]:
    found = [headers_of(message) for message in messages]
    return list(map(chunks.pack_headers, found)) if any(found) else [None] * len(messages)


def _time(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return milliseconds if kind != TIMESTAMP_NOT_AVAILABLE else None
