"""What predict found, kept beside the predictions: which model scored the batch, when, and the counts by partition.

One file a shard: `scored.json` for the first, `scored-<shard>.json` for any other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from include.batch.manifest import Manifest, PartitionBatch
from include.batch.storage import Storage
from include.errors import StagedFileGoneError


@dataclass(frozen=True)
class PartitionScores:
    """`end` and `chunks` are set where predict had no time for all that was drained: so far it came."""

    partition: int
    scored: int = 0
    frauds: int = 0
    dead_letters: int = 0
    end: int | None = None
    chunks: int | None = None


@dataclass(frozen=True)
class ScoredBatch:
    """`model` is ModelRun.to_dict(); dead letters, and their count by reason, are those of drain and model together."""

    model: dict[str, Any]
    scored_at: str
    partitions: tuple[PartitionScores, ...]
    reasons: dict[str, int]

    @property
    def scored(self) -> int:
        return sum(part.scored for part in self.partitions)

    @property
    def frauds(self) -> int:
        return sum(part.frauds for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        return sum(part.dead_letters for part in self.partitions)

    def parts_of(self, manifest: Manifest) -> tuple[PartitionBatch, ...]:
        """What of the drained batch was scored, which is what is published of it."""
        drained = {part.partition: part for part in manifest.partitions}
        parts = []
        for scores in self.partitions:
            part = drained[scores.partition]
            if scores.end is not None and scores.chunks is not None:
                # When the last one of these was written, nobody has noted.
                part = replace(part, end=scores.end, chunks=scores.chunks, newest=None)
            if part.is_due:
                parts.append(part)
        return tuple(parts)

    def left_of(self, manifest: Manifest) -> int:
        """How many offsets the batch leaves behind, whichever of the run's limits it met."""
        drained = sum(part.end - part.start for part in manifest.partitions)
        return manifest.lag + drained - sum(part.end - part.start for part in self.parts_of(manifest))

    def save(self, storage: Storage, folder: str, shard: int = 0) -> None:
        storage.write(f"{folder}/{_name(shard)}", msgspec.json.encode(self))

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
        )

    @classmethod
    def load_shard(cls, storage: Storage, folder: str, shard: int) -> ScoredBatch:
        return storage.need_json(f"{folder}/{_name(shard)}", cls)


def _partition(part: PartitionScores) -> int:
    return part.partition


def _name(shard: int) -> str:
    return f"scored-{shard}.json" if shard else "scored.json"
