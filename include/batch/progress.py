"""How far the group had come, kept beside the staged batches: it tells a group that lost its offsets from a new one."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from include.batch.storage import Storage
from include.kafka.offsets import Topic


class _Reached(msgspec.Struct):
    topic_id: str
    offsets: dict[str, int]


class Progress:
    def __init__(self, storage: Storage, group: str) -> None:
        self._storage = storage
        self._group = quote(group, safe="")

    def reached(self, topic: Topic, partition: int) -> int | None:
        """None where this group has never committed an offset of this partition."""
        known = self._load(topic.name)
        return known.offsets.get(str(partition)) if known else None

    def note(self, topic: Topic, offsets: Mapping[int, int]) -> None:
        known = self._load(topic.name) or _Reached(topic.topic_id, {})
        known.topic_id = topic.topic_id
        known.offsets |= {str(partition): offset for partition, offset in offsets.items()}
        self._storage.write(self._path(topic.name), msgspec.json.encode(known))

    def _path(self, topic: str) -> str:
        return f"progress/{self._group}/{topic}.json"

    def _load(self, topic: str) -> _Reached | None:
        data = self._storage.read(self._path(topic))
        return msgspec.json.decode(data, type=_Reached) if data else None
