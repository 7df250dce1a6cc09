"""What predict found, kept beside the predictions: which model scored the batch, when, and the counts by partition.

One file a shard: `scored-<shard>.json`, and the same as `published-<shard>.json` once its publishing has begun.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from include.batch.manifest import Manifest, PartitionBatch
from include.errors import StagedFileGoneError
from include.storage.staging import Storage

_SCORED, _FIXED = "scored-", "published-"


@dataclass(frozen=True)
class PartitionScores:
    """`part` is what was scored of the drained one: where predict had no time for all, it ends earlier. `staged` is
    the folder of the predictions, as `PartitionBatch.staged` is that of the payments they belong to."""

    part: PartitionBatch
    staged: str
    scored: int = 0
    frauds: int = 0
    dead_letters: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredBatch:
    """`model` is ModelRun.to_dict(); dead letters, and their count by reason, are those of drain and model together.
    `seconds` is what predict took, the longest where there are several shards."""

    model: dict[str, Any]
    scored_at: str
    partitions: tuple[PartitionScores, ...]
    reasons: dict[str, int]
    seconds: float | None = None

    @property
    def scored(self) -> int:
        return sum(part.scored for part in self.partitions)

    @property
    def frauds(self) -> int:
        return sum(part.frauds for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        return sum(part.dead_letters for part in self.partitions)

    @property
    def due(self) -> tuple[PartitionScores, ...]:
        """Those with an offset to commit."""
        return tuple(scores for scores in self.partitions if scores.part.is_due)

    def left_of(self, manifest: Manifest) -> int:
        """How many offsets the batch leaves behind, whichever of the run's limits it met."""
        drained = sum(part.end - part.start for part in manifest.partitions)
        return manifest.lag + drained - sum(scores.part.end - scores.part.start for scores in self.partitions)

    def save(self, storage: Storage, folder: str, shard: int = 0) -> None:
        storage.write(_path(folder, _SCORED, shard), msgspec.json.encode(self))

    @classmethod
    def load_fixed(cls, storage: Storage, folder: str, shard: int = 0) -> ScoredBatch:
        """What publishing begins with, it goes on with, and so does the report: a predict that another attempt has
        overtaken may wake up and save its own at any time. (Not if it does so between two publishers' first writes.)
        """
        fixed = cls._fixed(storage, folder, shard)
        if fixed is None:
            fixed = storage.need_json(_path(folder, _SCORED, shard), cls)
            storage.write(_path(folder, _FIXED, shard), msgspec.json.encode(fixed))
        return fixed

    @classmethod
    def _fixed(cls, storage: Storage, folder: str, shard: int) -> ScoredBatch | None:
        try:
            return storage.need_json(_path(folder, _FIXED, shard), cls)
        except StagedFileGoneError:
            return None

    @staticmethod
    def has_begun(storage: Storage, folder: str) -> bool:
        """Some partition may be published: what is staged stands for what readers see."""
        return any(name.startswith(_FIXED) for name in storage.list(folder))

    @classmethod
    def load(cls, storage: Storage, manifest: Manifest) -> ScoredBatch:
        """Of all shards that were scored. Raises StagedFileGoneError where none was."""
        found: list[ScoredBatch] = []
        shards = len(manifest.shards) or 1
        for shard in range(shards):
            try:
                found.append(cls.load_shard(storage, manifest.folder, shard))
            except StagedFileGoneError:
                if shard == shards - 1 and not found:
                    raise
        return replace(
            found[0],
            scored_at=max(shard.scored_at for shard in found),
            partitions=tuple(sorted((part for shard in found for part in shard.partitions), key=_partition)),
            reasons=dict(sum((Counter(shard.reasons) for shard in found), Counter[str]())),
            seconds=max((shard.seconds for shard in found if shard.seconds is not None), default=None),
        )

    @classmethod
    def load_shard(cls, storage: Storage, folder: str, shard: int) -> ScoredBatch:
        fixed = cls._fixed(storage, folder, shard)
        return fixed or storage.need_json(_path(folder, _SCORED, shard), cls)


def _partition(scores: PartitionScores) -> int:
    return scores.part.partition


def _path(folder: str, kind: str, shard: int) -> str:
    return f"{folder}/{kind}{shard}.json"
