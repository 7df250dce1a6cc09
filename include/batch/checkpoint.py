"""Store how far a consumer group has come on each partition, in the staging area beside the batches.

Kafka forgets a group's offsets some time after their last commit, and with the topic. A group that lost its offsets
must not be taken for a new group, which starts at the earliest payment: it would score everything again.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from include.errors import StagedFileDamagedError, StagedFileGoneError
from include.kafka.cluster import Topic
from include.storage.staging import Storage


class PartitionCheckpoint(msgspec.Struct):
    """The offset that a group has committed on a partition of the topic with this id."""

    topic_id: str
    offset: int


class Checkpoint:
    """A group's checkpoint: a file for each partition, because several shards write at the same time."""

    def __init__(self, storage: Storage, group: str) -> None:
        self._storage = storage
        self._group = quote(group, safe="")

    def read(self, topic: Topic, partition: int) -> PartitionCheckpoint | None:
        """Return a partition's checkpoint, None if there is none. It may be of a deleted topic of the same name.

        Raise StagedFileDamagedError if it cannot be read: None would mean a new group.
        """
        path = self._path(topic.name, partition)
        try:
            return self._storage.need_json(path, PartitionCheckpoint)
        except StagedFileGoneError:
            return None
        except StagedFileDamagedError as error:
            raise StagedFileDamagedError(
                f"the group's checkpoint of {topic.name}/{partition} cannot be read: {path} is damaged. Choose the "
                f"offset to continue at with `fraud offsets set --partition {partition}`, which writes the file again"
            ) from error

    def advance(self, topic: Topic, partition: int, offset: int) -> None:
        """Write a partition's checkpoint, unless it is further already, as when an old task is repeated."""
        try:
            earlier = self.read(topic, partition)
        except StagedFileDamagedError:
            earlier = None
        if earlier is None or earlier.topic_id != topic.topic_id or earlier.offset < offset:
            self.write(topic, partition, offset)

    def write(self, topic: Topic, partition: int, offset: int) -> None:
        """Write a partition's checkpoint. Raise StagingError if it cannot be written."""
        self._storage.write(
            self._path(topic.name, partition), msgspec.json.encode(PartitionCheckpoint(topic.topic_id, offset))
        )

    def _path(self, topic: str, partition: int) -> str:
        return f"progress/{self._group}/{topic}/{partition}.json"
