"""How far the group had come, kept beside the staged batches: it tells a group that lost its offsets from a new one."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from include.errors import StagedFileDamagedError, StagedFileGoneError
from include.kafka.cluster import Topic
from include.storage.staging import Storage


class PartitionCheckpoint(msgspec.Struct):
    topic_id: str
    offset: int


class Checkpoint:
    """One file a partition, for each shard writes its own."""

    def __init__(self, storage: Storage, group: str) -> None:
        self._storage = storage
        self._group = quote(group, safe="")

    def reached(self, topic: Topic, partition: int) -> PartitionCheckpoint | None:
        """None where this group has never stood on this partition, of whichever topic of that name.

        Raises StagedFileDamagedError: taken for a group that is new, it would score everything again.
        """
        path = self._path(topic.name, partition)
        try:
            return self._storage.need_json(path, PartitionCheckpoint)
        except StagedFileGoneError:
            return None
        except StagedFileDamagedError as error:
            raise StagedFileDamagedError(
                f"how far the group had come on {topic.name}/{partition} cannot be read: {path} is damaged. Decide "
                f"where it goes on with `fraud offsets set --partition {partition}`, which writes it anew"
            ) from error

    def advance(self, topic: Topic, partition: int, offset: int) -> None:
        """As `note`, but never back: for a publisher that may wake up late, or publish an old batch again."""
        try:
            earlier = self.reached(topic, partition)
        except StagedFileDamagedError:
            earlier = None
        if earlier is None or earlier.topic_id != topic.topic_id or earlier.offset < offset:
            self.note(topic, partition, offset)

    def note(self, topic: Topic, partition: int, offset: int) -> None:
        self._storage.write(
            self._path(topic.name, partition), msgspec.json.encode(PartitionCheckpoint(topic.topic_id, offset))
        )

    def _path(self, topic: str, partition: int) -> str:
        return f"progress/{self._group}/{topic}/{partition}.json"
