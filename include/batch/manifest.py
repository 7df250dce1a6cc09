"""Describe a batch: the offset ranges that one run scores, and what reading them gave.

A batch's folder in the staging area has `manifest.json`, which `plan` writes: the offset range of each partition, and
its shard. `drain` adds `drained-<shard>.json` for each shard: how many payments and dead letters it has staged.
`Manifest.load` reads both. Field names are keys of these files and of the XCom `manifest`, except for a few fields of
Manifest, whose keys are those of earlier versions (`_STORED_KEYS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from include.batch.batch_id import folder_of
from include.storage.staging import Storage

if TYPE_CHECKING:
    from include.kafka.committed_offsets import CommittedOffset


@dataclass(frozen=True)
class PartitionBatch:
    """One partition's part of a batch: the offsets `[start, end)`, and what reading them gave.

    Attributes:
        start: The first offset to read.
        end: The offset to commit, one past the last offset to read.
        committed_before: The group's committed offset when the batch was planned, None if it had none.
        chunks: The number of staged chunks, files that hold the payments and dead letters.
        payments: The number of payments in them.
        dead_letters: The number of dead letters in them.
        lost: How many offsets the retention deleted from `committed_before` on: no run committed them.
        low: The first offset that the partition retained when the batch was planned.
        stable: Its last stable offset at that time.
        oldest: The Kafka timestamp of the first message read, in milliseconds.
        newest: The Kafka timestamp of the last message read, in milliseconds; None after `predict` has cut it off.
        moved_from: Where this DAG's runs would have continued, if another program has committed `committed_before`
            instead.
        batch_before: The batch that committed `committed_before`, by its commit note.
        staged: The folder of the chunks. Each attempt at `drain` has a folder of its own and overwrites no other's.
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

    def is_unchanged(self, committed: CommittedOffset) -> bool:
        """Return whether the committed offset is still the planned one, by the same batch or operator."""
        return committed.offset == self.committed_before and committed.batch == self.batch_before

    @property
    def needs_commit(self) -> bool:
        """Return whether an offset has to be committed.

        If payments expired or another program moved the offset, the commit keeps later runs from reporting it again.
        """
        return self.start < self.end or self.lost > 0 or self.moved_from is not None


@dataclass(frozen=True)
class BlockedPartition:
    """A partition without anything to read, because a producer has a kafka transaction open on it.

    The offsets `[stable, high)` wait for the end of that transaction. `committed` is the group's committed offset, None
    if it has none; `low` is the first offset that the partition retains.
    """

    partition: int
    committed: int | None
    low: int
    stable: int
    high: int


@dataclass(frozen=True)
class Drained:
    """The partitions of one shard after `drain`.

    Attributes:
        partitions: The partitions as they were read. Their ranges end earlier if the time limit was reached.
        left: How many planned offsets were not read because of the time limit.
        columns: The columns that the payments have, sorted.
        all_columns_known: Whether `columns` is complete. It is not if the payments have very many columns.
        seconds: How long `drain` took.
    """

    partitions: tuple[PartitionBatch, ...]
    left: int = 0
    columns: tuple[str, ...] = ()
    all_columns_known: bool = True
    seconds: float | None = None


# Keys by field name. They are older than the names, and stay, so that any version reads the manifests of any other.
_STORED_KEYS = {
    "planned_at": "drained_at",
    "left_for_later_runs": "lag",
    "blocked": "held_up",
    "needs_claim": "has_claim",
}


class Manifest(msgspec.Struct, frozen=True, rename=_STORED_KEYS):
    """A batch.

    Attributes:
        run_id: The id of the Airflow run that planned it.
        run_url: Its page in Airflow's UI.
        topic_id: The id of the input topic: a recreated topic of the same name has another id.
        planned_at: When the batch was planned, in ISO 8601.
        partitions: The partitions to read, or as they were read.
        shards: The partition numbers of each shard; empty if an earlier version planned the batch.
        columns: The columns that the payments have; empty unless every shard knows all of its columns.
        left_for_later_runs: How many readable offsets the limits of `plan` and `drain` leave.
        blocked: The partitions that a kafka transaction blocks.
        seconds: How long `plan` took.
        needs_claim: Whether the batch needs a claim to be published. Earlier versions did not write claims.
    """

    batch_id: str
    run_id: str
    run_url: str
    group: str
    topic: str
    topic_id: str
    planned_at: str
    partitions: tuple[PartitionBatch, ...]
    shards: tuple[tuple[int, ...], ...] = ()
    columns: tuple[str, ...] = ()
    left_for_later_runs: int = 0
    blocked: tuple[BlockedPartition, ...] = ()
    seconds: float | None = None
    needs_claim: bool = False

    @property
    def folder(self) -> str:
        """Return the batch's folder in the staging area."""
        return folder_of(self.batch_id)

    def new_attempt_folder(self) -> str:
        """Return a new folder's name, for the files that one attempt at a step stages."""
        return f"{self.folder}/{uuid4().hex[:8]}"

    @property
    def payments(self) -> int:
        """Return the number of payments that were read."""
        return sum(part.payments for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        """Return the number of dead letters that were read."""
        return sum(part.dead_letters for part in self.partitions)

    @property
    def lost(self) -> int:
        """Return how many offsets expired that no run had committed."""
        return sum(part.lost for part in self.partitions)

    @property
    def oldest(self) -> int | None:
        """Return the lowest `PartitionBatch.oldest`, None if no message was read."""
        return min((part.oldest for part in self.partitions if part.oldest is not None), default=None)

    @property
    def newest(self) -> int | None:
        """Return the highest `PartitionBatch.newest`, None if no message was read."""
        return max((part.newest for part in self.partitions if part.newest is not None), default=None)

    def shard_partitions(self, shard: int) -> tuple[PartitionBatch, ...]:
        """Return the partitions of a shard; none if there is no such shard."""
        numbers = self.shards[shard] if shard < len(self.shards) else ()
        return tuple(part for part in self.partitions if part.partition in numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest for an XCom, without `columns`: producers name them, perhaps with personal data."""
        plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, columns=()))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        """Return the manifest of an XCom."""
        return msgspec.convert(plain, cls)

    def save(self, storage: Storage) -> None:
        """Write `manifest.json`. Raise StagingError if it cannot be written."""
        storage.write(f"{self.folder}/manifest.json", msgspec.json.encode(self))

    def save_drained(self, storage: Storage, shard: int, drained: Drained) -> None:
        """Write `drained-<shard>.json`. Raise StagingError if it cannot be written."""
        storage.write(f"{self.folder}/drained-{shard}.json", msgspec.json.encode(drained))

    def load_drained(self, storage: Storage, shard: int) -> Drained:
        """Read `drained-<shard>.json`. Raise StagedFileGoneError if the shard is not drained."""
        return storage.need_json(f"{self.folder}/drained-{shard}.json", Drained)

    @classmethod
    def load(cls, storage: Storage, batch_id: str) -> Manifest:
        """Return the batch as all of its shards were read. Raise StagedFileGoneError if a shard is not drained."""
        manifest = cls.load_plan(storage, batch_id)
        if not manifest.shards:
            return manifest
        return manifest.with_drained([manifest.load_drained(storage, shard) for shard in range(len(manifest.shards))])

    @classmethod
    def load_plan(cls, storage: Storage, batch_id: str) -> Manifest:
        """Return the batch as it was planned. Raise StagedFileGoneError if there is no such batch."""
        return storage.need_json(f"{folder_of(batch_id)}/manifest.json", cls)

    def with_drained(self, drained: list[Drained]) -> Manifest:
        """Return the batch with the partitions of these shards as they were read."""
        # With an incomplete list a column that payments have would look missing.
        known = all(shard.all_columns_known for shard in drained)
        return msgspec.structs.replace(
            self,
            partitions=tuple(
                sorted((part for shard in drained for part in shard.partitions), key=attrgetter("partition"))
            ),
            columns=tuple(sorted({name for shard in drained for name in shard.columns})) if known else (),
            left_for_later_runs=self.left_for_later_runs + sum(shard.left for shard in drained),
        )
