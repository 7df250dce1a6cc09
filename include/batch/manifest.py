"""What one run has drained: small enough for an XCom, and kept beside the staged payments.

`manifest.json` fixes the offset ranges and which shard reads which partitions; `drained-<shard>.json` says what that
shard found there. Whoever loads a manifest gets both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from include.storage.staging import Storage

if TYPE_CHECKING:
    from include.kafka.committed_offsets import CommittedOffset


@dataclass(frozen=True)
class PartitionBatch:
    """One partition's part of a batch: the offsets `[start, end)`, and what was found there.

    `low` and `stable` are where the partition began and ended then; `oldest` and `newest` the Kafka timestamps of the
    first and the last message read, in milliseconds. `moved_from` is how far this group had come by itself, where
    another program has committed `committed_before`. `batch_before` is who committed it, by the note beside it.
    `staged` is the folder of its chunks, which belongs to the attempt that wrote them: none overwrites another's.
    """

    partition: int
    start: int
    end: int
    committed_before: int | None
    chunks: int = 0
    payments: int = 0
    dead_letters: int = 0
    lost: int = 0
    low: int = 0
    stable: int = 0
    oldest: int | None = None
    newest: int | None = None
    moved_from: int | None = None
    batch_before: str | None = None
    staged: str = ""

    def is_untouched(self, now: CommittedOffset) -> bool:
        """The group still stands where the batch was drained from, and nobody has committed since."""
        return now.offset == self.committed_before and now.batch == self.batch_before

    @property
    def is_due(self) -> bool:
        """There is an offset to commit, though perhaps no payment: what expired or was passed over is settled so."""
        return self.start < self.end or self.lost > 0 or self.moved_from is not None


@dataclass(frozen=True)
class BlockedPartition:
    """A partition of which nothing can be read though there is something: the offsets `[stable, high)` wait for the end
    of a kafka transaction that some producer has open. `low` as above."""

    partition: int
    committed: int | None
    low: int
    stable: int
    high: int


@dataclass(frozen=True)
class Drained:
    """One shard's partitions as they were read. `left`: offsets that it had no more time for; `seconds`: its time."""

    partitions: tuple[PartitionBatch, ...]
    left: int = 0
    columns: tuple[str, ...] = ()
    all_columns_known: bool = True
    seconds: float | None = None


@dataclass(frozen=True)
class Manifest:
    """`shards` are the numbers of the partitions that each reads; `lag` counts the offsets left for later runs, but
    those that are `held_up`; `seconds` is what planning it took. `has_claim` is false of a batch that a
    version without claims has staged."""

    batch_id: str
    run_id: str
    run_url: str
    group: str
    topic: str
    topic_id: str
    drained_at: str
    partitions: tuple[PartitionBatch, ...]
    shards: tuple[tuple[int, ...], ...] = ()
    columns: tuple[str, ...] = field(default=())
    lag: int = 0
    held_up: tuple[BlockedPartition, ...] = ()
    seconds: float | None = None
    has_claim: bool = False

    @property
    def folder(self) -> str:
        return folder_of(self.batch_id)

    def new_attempt(self) -> str:
        """A folder for what one attempt at a step stages."""
        return f"{self.folder}/{uuid4().hex[:8]}"

    @property
    def payments(self) -> int:
        return sum(part.payments for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        return sum(part.dead_letters for part in self.partitions)

    @property
    def lost(self) -> int:
        return sum(part.lost for part in self.partitions)

    @property
    def oldest(self) -> int | None:
        return min((part.oldest for part in self.partitions if part.oldest is not None), default=None)

    @property
    def newest(self) -> int | None:
        return max((part.newest for part in self.partitions if part.newest is not None), default=None)

    def of_shard(self, shard: int) -> tuple[PartitionBatch, ...]:
        numbers = self.shards[shard] if shard < len(self.shards) else ()
        return tuple(part for part in self.partitions if part.partition in numbers)

    def to_dict(self) -> dict[str, Any]:
        """For an XCom: without the columns, whose names come from the topic and might be anything."""
        plain: dict[str, Any] = msgspec.to_builtins(replace(self, columns=()))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        return msgspec.convert(plain, cls)

    def save(self, storage: Storage) -> None:
        storage.write(f"{self.folder}/manifest.json", msgspec.json.encode(self))

    def save_drained(self, storage: Storage, shard: int, drained: Drained) -> None:
        storage.write(f"{self.folder}/drained-{shard}.json", msgspec.json.encode(drained))

    def load_drained(self, storage: Storage, shard: int) -> Drained:
        """Raise StagedFileGoneError where the shard has not drained its partitions."""
        return storage.need_json(f"{self.folder}/drained-{shard}.json", Drained)

    @classmethod
    def load(cls, storage: Storage, batch_id: str) -> Manifest:
        """Raises StagedFileGoneError where a shard has not drained its partitions."""
        manifest = cls.load_plan(storage, batch_id)
        if not manifest.shards:
            return manifest
        return manifest.with_drained([manifest.load_drained(storage, shard) for shard in range(len(manifest.shards))])

    @classmethod
    def load_plan(cls, storage: Storage, batch_id: str) -> Manifest:
        return storage.need_json(f"{folder_of(batch_id)}/manifest.json", cls)

    def with_drained(self, drained: list[Drained]) -> Manifest:
        # No columns at all where not all are known: then nobody can say that one is missing.
        known = all(shard.all_columns_known for shard in drained)
        return replace(
            self,
            partitions=tuple(sorted((part for shard in drained for part in shard.partitions), key=_partition)),
            columns=tuple(sorted({name for shard in drained for name in shard.columns})) if known else (),
            lag=self.lag + sum(shard.left for shard in drained),
        )


def new_batch_id(now: datetime) -> str:
    """Sortable by time, and new for every drain: a batch drained again is another batch until one is committed."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def is_batch_id(text: str) -> bool:
    """Not what an operator's command, or another program, notes beside an offset."""
    return re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", text) is not None


def folder_of(batch_id: str) -> str:
    """By hour, so that old ones are found without listing every batch."""
    return f"batches/{hour_of(batch_id)}/{batch_id}"


def hour_of(batch_id: str) -> str:
    return batch_id[:11]


def _partition(part: PartitionBatch) -> int:
    return part.partition
