"""How far the group had come, kept beside the staged batches: it tells a group that lost its offsets from a new one."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from include.batch.storage import Storage
from include.kafka.offsets import Topic


class Reached(msgspec.Struct):
    topic_id: str
    offset: int


class Progress:
    """One file a partition, for each shard writes its own."""

    def __init__(self, storage: Storage, group: str) -> None:
        self._storage = storage
        self._group = quote(group, safe="")

    def reached(self, topic: Topic, partition: int) -> Reached | None:
        """None where this group has never committed an offset of this partition, of whichever topic of that name."""
        data = self._storage.read(self._path(topic.name, partition))
        return msgspec.json.decode(data, type=Reached) if data else None

    def note(self, topic: Topic, partition: int, offset: int) -> None:
        self._storage.write(self._path(topic.name, partition), msgspec.json.encode(Reached(topic.topic_id, offset)))

    def _path(self, topic: str, partition: int) -> str:
        return f"progress/{self._group}/{topic}/{partition}.json"
