"""What one run has drained: small enough for an XCom, and kept beside the staged payments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from include.batch.storage import Storage
from include.errors import StagingError


@dataclass(frozen=True)
class PartitionBatch:
    """One partition's part of a batch: the offsets `[start, end)`, and what was found there."""

    partition: int
    start: int
    end: int
    committed_before: int | None
    chunks: int = 0
    payments: int = 0
    dead_letters: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Manifest:
    batch_id: str
    run_id: str
    run_url: str
    group: str
    topic: str
    topic_id: str
    drained_at: str
    partitions: tuple[PartitionBatch, ...]
    columns: tuple[str, ...] = field(default=())
    lag: int = 0

    @property
    def folder(self) -> str:
        """By hour, so that old ones are found without listing every batch."""
        return f"batches/{hour_of(self.batch_id)}/{self.batch_id}"

    @property
    def payments(self) -> int:
        return sum(part.payments for part in self.partitions)

    @property
    def dead_letters(self) -> int:
        return sum(part.dead_letters for part in self.partitions)

    @property
    def lost(self) -> int:
        return sum(part.lost for part in self.partitions)

    def to_dict(self) -> dict[str, Any]:
        """For an XCom: without the columns, whose names come from the topic and might be anything."""
        plain: dict[str, Any] = msgspec.to_builtins(replace(self, columns=()))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        return msgspec.convert(plain, cls)

    def save(self, storage: Storage) -> None:
        storage.write(f"{self.folder}/manifest.json", msgspec.json.encode(self))

    @classmethod
    def load(cls, storage: Storage, batch_id: str) -> Manifest:
        path = f"batches/{hour_of(batch_id)}/{batch_id}/manifest.json"
        try:
            return msgspec.json.decode(storage.need(path), type=cls)
        except msgspec.DecodeError as error:
            raise StagingError(f"{path} in {storage.url} is damaged") from error


def new_batch_id(now: datetime) -> str:
    """Sortable by time, and new for every drain: a batch drained again is another batch until one is committed."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def hour_of(batch_id: str) -> str:
    return batch_id[:11]
