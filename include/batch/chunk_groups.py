"""Read staged chunks in groups, as many as memory holds: the model scores payments of several chunks in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from include.batch import chunks
from include.batch.manifest import PartitionBatch
from include.payments.encode import unscored_object
from include.storage.staging import Storage

# A group is complete when it reaches one of these.
_GROUP_ROWS = 50_000
_GROUP_BYTES = chunks.MAX_BUFFERED_BYTES


@dataclass(frozen=True)
class PaymentChunk:
    """A chunk to score. `number` counts the chunks of its partition from 0.

    `reasons` has an entry for each row: None for a payment, else why the row is a dead letter. `row_indices` are the
    indices of the rows with a payment, and `payments` are those payments as JSON objects.
    """

    part: PartitionBatch
    number: int
    payments: list[bytes]
    row_indices: list[int]
    reasons: list[str | None]


def read_chunk_groups(storage: Storage, parts: Sequence[PartitionBatch]) -> Iterator[list[PaymentChunk]]:
    """Yield the chunks of all partitions in groups.

    The first chunk of each partition comes first, then the second of each, and so on. Partitions whose payments have
    waited longest come first: if time is never enough for all, none is left behind for good.
    """
    ordered = sorted(parts, key=lambda part: (part.oldest or 0, part.partition))
    group: list[PaymentChunk] = []
    size = rows = 0
    for number in range(max((part.chunks for part in parts), default=0)):
        for part in ordered:
            if number < part.chunks:
                group.append(chunk := _read_chunk(storage, part, number))
                size += sum(map(len, chunk.payments))
                # Dead letters take memory too, though the model does not score them.
                rows += len(chunk.reasons)
                if size >= _GROUP_BYTES or rows >= _GROUP_ROWS:
                    yield group
                    group, size, rows = [], 0, 0
    if group:
        yield group


def read_offsets(storage: Storage, part: PartitionBatch, number: int) -> list[int]:
    """Return the offset of each row of a chunk, ascending; rows of one message have the same offset."""
    return chunks.read_payments(storage, part.staged, part.partition, number, ("offset",))["offset"]


def _read_chunk(storage: Storage, part: PartitionBatch, number: int) -> PaymentChunk:
    columns = chunks.read_payments(storage, part.staged, part.partition, number, ("head", "tail", "reason"))
    heads, tails, reasons = columns["head"], columns["tail"], columns["reason"]
    row_indices = [index for index, reason in enumerate(reasons) if reason is None]
    payments = [unscored_object(heads[index], tails[index]) for index in row_indices]
    return PaymentChunk(part, number, payments, row_indices, reasons)
