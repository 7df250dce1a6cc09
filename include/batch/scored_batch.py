"""Hold what `predict` found: which model scored the batch, when, and the counts of each partition.

Each shard has a file `scored-<shard>.json` in the batch's folder. When its publishing begins, the file is copied to
`published-<shard>.json`, which no later attempt at `predict` changes. Field names are keys of these files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import msgspec

from include.batch.manifest import Manifest, PartitionBatch
from include.errors import StagedFileGoneError
from include.storage.staging import Storage

_SCORED, _PUBLISHED = "scored-", "published-"


@dataclass(frozen=True)
class ScoredPartition:
    """One partition as it was scored.

    The counts are of scored payments, of frauds among them, and of dead letters, in all and by reason code.
    `part` is the partition as it was drained; it ends earlier if `predict` reached its time limit. `staged` is the
    folder of the predictions, as `part.staged` is the folder of the payments.
    """

    part: PartitionBatch
    staged: str
    scored: int = 0
    frauds: int = 0
    dead_letters: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredBatch:
    """A scored shard, or all scored shards of a batch.

    Attributes:
        model: The model run, as ModelRun.to_dict() returns it.
        scored_at: When scoring ended, in ISO 8601.
        partitions: The partitions as they were scored.
        reasons: The number of dead letters by reason code, those of `drain` and of the model together.
        seconds: How long `predict` took; of several shards, the longest time.
    """

    model: dict[str, Any]
    scored_at: str
    partitions: tuple[ScoredPartition, ...]
    reasons: dict[str, int]
    seconds: float | None = None

    @property
    def scored(self) -> int:
        """Return the number of scored payments."""
        return sum(part.scored for part in self.partitions)

    @property
    def frauds(self) -> int:
        """Return the number of frauds."""
        return sum(part.frauds for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        """Return the number of dead letters."""
        return sum(part.dead_letters for part in self.partitions)

    @property
    def to_publish(self) -> tuple[ScoredPartition, ...]:
        """Return the partitions with an offset to commit, including those without a message to publish."""
        return tuple(one for one in self.partitions if one.part.needs_commit)

    def offsets_left(self, manifest: Manifest) -> int:
        """Return how many offsets the batch leaves for later runs: limits of `plan`, `drain` and `predict` together."""
        drained = sum(part.end - part.start for part in manifest.partitions)
        return manifest.left_for_later_runs + drained - sum(one.part.end - one.part.start for one in self.partitions)

    def save(self, storage: Storage, folder: str, shard: int = 0) -> None:
        """Write `scored-<shard>.json` in the batch's `folder`. Raise StagingError if it cannot be written."""
        storage.write(_path(folder, _SCORED, shard), msgspec.json.encode(self))

    @classmethod
    def begin_publishing(cls, storage: Storage, folder: str, shard: int = 0) -> ScoredBatch:
        """Return the shard that every attempt to publish it must use; the first one copies it to `published-…`.

        A late attempt at `predict` may save other results at any time. They would differ from the messages that are
        published already, and from the report. If two attempts at `publish` copy at the same moment, and `predict` has
        saved other results in between, their copies differ: fencing lets only one of them publish, but the copy that
        stays, and so the report, may be the other one's.
        """
        published = cls._load_published(storage, folder, shard)
        if published is None:
            published = storage.need_json(_path(folder, _SCORED, shard), cls)
            storage.write(_path(folder, _PUBLISHED, shard), msgspec.json.encode(published))
        return published

    @classmethod
    def _load_published(cls, storage: Storage, folder: str, shard: int) -> ScoredBatch | None:
        try:
            return storage.need_json(_path(folder, _PUBLISHED, shard), cls)
        except StagedFileGoneError:
            return None

    @staticmethod
    def publishing_has_begun(storage: Storage, folder: str) -> bool:
        """Return whether a publisher has begun, and may have sent messages: then staged files must stay as they are."""
        return any(name.startswith(_PUBLISHED) for name in storage.list(folder))

    @classmethod
    def load(cls, storage: Storage, manifest: Manifest) -> ScoredBatch:
        """Return all shards that are scored, as one. Raise StagedFileGoneError if none is."""
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
            partitions=tuple(
                sorted((part for shard in found for part in shard.partitions), key=attrgetter("part.partition"))
            ),
            reasons=dict(sum((Counter(shard.reasons) for shard in found), Counter[str]())),
            seconds=max((shard.seconds for shard in found if shard.seconds is not None), default=None),
        )

    @classmethod
    def load_shard(cls, storage: Storage, folder: str, shard: int) -> ScoredBatch:
        """Return one shard, as it is published if that has begun. Raise StagedFileGoneError if it is not scored."""
        published = cls._load_published(storage, folder, shard)
        return published or storage.need_json(_path(folder, _SCORED, shard), cls)


def _path(folder: str, prefix: str, shard: int) -> str:
    return f"{folder}/{prefix}{shard}.json"
