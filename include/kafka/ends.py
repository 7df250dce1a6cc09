"""Where a topic's partitions begin and end, and where they stood at a time: one request for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from include.kafka.access import Admin
from include.kafka.config import Settings, explained
from include.kafka.offsets import REQUEST_SECONDS

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def first_offsets(admin: Admin, client: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _list(admin, client, topic, partitions, _EARLIEST)


def last_stable_offsets(admin: Admin, client: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _list(admin, client, topic, partitions, _LATEST)


def high_watermarks(admin: Admin, client: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """With what open kafka transactions have written."""
    return _list(admin, client, topic, partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED)


def offsets_since(
    admin: Admin, client: Settings, topic: str, partitions: Iterable[int], time_ms: int
) -> dict[int, int | None]:
    """The first message of that time or later, None where there is none."""
    spec: OffsetSpec = OffsetSpec.for_timestamp(max(0, time_ms))
    found = _list(admin, client, topic, partitions, spec, IsolationLevel.READ_UNCOMMITTED)
    return {partition: offset if offset >= 0 else None for partition, offset in found.items()}


def _list(
    admin: Admin,
    client: Settings,
    topic: str,
    partitions: Iterable[int],
    spec: OffsetSpec,
    level: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[int, int]:
    asked = {TopicPartition(topic, partition): spec for partition in partitions}
    with explained(f"offsets of {topic} cannot be listed", client):
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_SECONDS)
        return {place.partition: admin.answer(answer).offset for place, answer in answers.items()}
