"""What predict found, kept beside the predictions: which model scored the batch, when, and the counts by partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from include.batch.storage import Storage
from include.errors import StagingError


@dataclass(frozen=True)
class PartitionScores:
    partition: int
    scored: int = 0
    frauds: int = 0
    dead_letters: int = 0


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

    def save(self, storage: Storage, folder: str) -> None:
        storage.write(f"{folder}/scored.json", msgspec.json.encode(self))

    @classmethod
    def load(cls, storage: Storage, folder: str) -> ScoredBatch:
        try:
            return msgspec.json.decode(storage.need(f"{folder}/scored.json"), type=cls)
        except msgspec.DecodeError as error:
            raise StagingError(f"{folder}/scored.json in {storage.url} is damaged") from error
