"""Where a topic's partitions begin and end, and where they stood at a time: one request for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from include.errors import SettingError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explained
from include.kafka.committed_offsets import REQUEST_SECONDS

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def first_offsets(admin: Admin, client: ClientConfig, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _list(admin, client, topic, partitions, _EARLIEST)


def last_stable_offsets(admin: Admin, client: ClientConfig, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _list(admin, client, topic, partitions, _LATEST)


def high_watermarks(admin: Admin, client: ClientConfig, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """With what open kafka transactions have written."""
    return _list(admin, client, topic, partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED)


def offsets_since(
    admin: Admin, client: ClientConfig, topic: str, partitions: Iterable[int], time_ms: int
) -> dict[int, int | None]:
    """The first message of that time or later, None where there is none."""
    spec: OffsetSpec = OffsetSpec.for_timestamp(max(0, time_ms))
    found = _list(admin, client, topic, partitions, spec, IsolationLevel.READ_UNCOMMITTED)
    return {partition: offset if offset >= 0 else None for partition, offset in found.items()}


def offsets_meant(
    admin: Admin,
    client: ClientConfig,
    topic: str,
    to: str,
    partitions: Iterable[int],
    bounds: Mapping[int, tuple[int, int]],
) -> dict[int, int]:
    """`to` is earliest, latest, an offset or a time, within `bounds`, of these partitions or all. Raises SettingError
    where it cannot be meant."""
    wanted = list(partitions) or list(bounds)
    for number in wanted:
        if number not in bounds:
            raise SettingError(f"{topic} has no partition {number}")
    if to == "earliest":
        return {number: bounds[number][0] for number in wanted}
    if to == "latest":
        return {number: bounds[number][1] for number in wanted}
    if to.isascii() and to.isdecimal():
        return {number: _inside(topic, number, bounds[number], int(to)) for number in wanted}
    time_ms = int(time_of("--to", to, "earliest, latest, an offset, or").timestamp() * 1000)
    since = offsets_since(admin, client, topic, wanted, time_ms)
    return {number: bounds[number][1] if at is None else min(at, bounds[number][1]) for number, at in since.items()}


def _inside(topic: str, partition: int, bounds: tuple[int, int], offset: int) -> int:
    first, end = bounds
    if first <= offset <= end:
        return offset
    raise SettingError(
        f"--to {offset}: {topic}/{partition} holds offsets from {first} to {end}; name partitions with --partition to "
        "set each to its own"
    )


def time_of(option: str, text: str, or_else: str) -> datetime:
    """What a person means by a time, UTC unless it says otherwise; `or_else` is what the option takes besides."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{option} {text}: give {or_else} a time as 2026-01-31T08:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _list(
    admin: Admin,
    client: ClientConfig,
    topic: str,
    partitions: Iterable[int],
    spec: OffsetSpec,
    level: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[int, int]:
    asked = {TopicPartition(topic, partition): spec for partition in partitions}
    with explained(f"offsets of {topic} cannot be listed", client):
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_SECONDS)
        return {place.partition: admin.answer(answer).offset for place, answer in answers.items()}
