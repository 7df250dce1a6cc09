"""Offsets as operators give them to a command: earliest, latest, an offset or a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from include.errors import SettingError
from include.kafka.cluster import Cluster


def resolve_targets(
    cluster: Cluster, topic: str, to: str, partitions: Iterable[int], bounds: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Return by partition the offset that `to`, the value of the option `--to`, means.

    `partitions` are the requested ones; empty means all. `bounds` are the first and the last stable offset of all
    partitions. A time means the first message from then on, or the last stable offset if there is none. Raise
    SettingError for an unknown partition, an offset outside the bounds, or an invalid time.
    """
    requested = list(partitions) or list(bounds)
    for number in requested:
        if number not in bounds:
            raise SettingError(f"{topic} has no partition {number}: give one of {', '.join(map(str, sorted(bounds)))}")
    if to == "earliest":
        return {number: bounds[number][0] for number in requested}
    if to == "latest":
        return {number: bounds[number][1] for number in requested}
    if to.isascii() and to.isdecimal():
        for number in requested:
            _require_within(topic, number, bounds[number], int(to))
        return dict.fromkeys(requested, int(to))
    time_ms = int(parse_time("--to", to, "earliest, latest, an offset, or").timestamp() * 1000)
    offsets = cluster.offsets_at(topic, requested, time_ms)
    return {
        number: bounds[number][1] if offset is None else min(offset, bounds[number][1])
        for number, offset in offsets.items()
    }


def parse_time(option: str, text: str, alternatives: str) -> datetime:
    """Return `text` as a time; without a zone it is in UTC.

    Raise SettingError if it is not a time in ISO 8601. `alternatives` names what else the option accepts.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{option} {text}: give {alternatives} a time as 2026-01-31T08:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _require_within(topic: str, partition: int, bounds: tuple[int, int], offset: int) -> None:
    first, end = bounds
    if not first <= offset <= end:
        raise SettingError(
            f"--to {offset}: {topic}/{partition} holds offsets from {first} to {end}. To set each partition to its own "
            "offset, name it with --partition"
        )
