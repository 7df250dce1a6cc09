"""Which offsets of the input topic are checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from include.errors import SettingError
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.offset_targets import parse_time

Place = int | datetime
# A time begins with a year, and so with a digit as well, but no colon follows.
_BOUND = re.compile(r"(?:(\d+):)?(.+)", re.ASCII)


@dataclass(frozen=True)
class Bounds:
    """An offset or a time for all partitions, and those of single ones, which go before it."""

    everywhere: Place | None = None
    single: Mapping[int, Place] = field(default_factory=dict)

    def of(self, partition: int) -> Place | None:
        return self.single.get(partition, self.everywhere)

    @classmethod
    def parse(cls, option: str, texts: list[str]) -> Bounds:
        """Of `OFFSET`, `TIME`, `PARTITION:OFFSET` or `PARTITION:TIME`, each at most once."""
        everywhere, single = None, {}
        for text in texts:
            found = _BOUND.fullmatch(text)
            partition, place = found.groups() if found else (None, text)
            is_offset = place.isdecimal() and place.isascii()
            bound = int(place) if is_offset else parse_time(option, place, "OFFSET or PARTITION:OFFSET, or")
            if partition is None:
                everywhere = bound
            else:
                single[int(partition)] = bound
        return cls(everywhere, single)

    def offsets(self, since: Callable[[datetime], Mapping[int, int]], partitions: tuple[int, ...]) -> dict[int, int]:
        """`since` gives the first offset of each partition from a time on."""
        times = {time: since(time) for time in {self.of(number) for number in partitions} if isinstance(time, datetime)}
        found = {}
        for number in partitions:
            bound = self.of(number)
            if bound is not None:
                found[number] = times[bound][number] if isinstance(bound, datetime) else bound
        return found


def windows(group: ConsumerGroup, start: Bounds, end: Bounds) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """`[start, end)` by partition, and what to tell of partitions that are not checked."""
    cluster, topic, partitions = group.cluster, group.topic.name, group.topic.partitions
    for partition in sorted({*start.single, *end.single} - set(partitions)):
        raise SettingError(f"{topic} has no partition {partition}")
    cluster.describe_group(group.name)
    committed = group.committed_offsets()
    low = cluster.first_offsets(topic, partitions)
    stable = cluster.last_stable_offsets(topic, partitions)

    def since(time: datetime) -> dict[int, int]:
        at = cluster.offsets_at(topic, partitions, int(time.timestamp() * 1000))
        return {number: stable[number] if place is None else min(place, stable[number]) for number, place in at.items()}

    starts, ends = start.offsets(since, partitions), end.offsets(since, partitions)
    found, notes = {}, []
    for partition in partitions:
        until = ends.get(partition, committed[partition].offset)
        if until is not None:
            if isinstance(start.of(partition), datetime):
                # Of a time on which nothing has been scored yet.
                starts[partition] = min(starts[partition], until)
            if partition not in starts and until < low[partition]:
                notes.append(f"{topic}/{partition}: not checked, for it begins at offset {low[partition]} by now")
            found[partition] = _window(
                f"{topic}/{partition}", starts.get(partition), until, low[partition], stable[partition]
            )
        elif low[partition] < stable[partition]:
            notes.append(f"{topic}/{partition}: not checked, for group {group.name} has committed no offset there")
    if not found:
        raise SettingError(
            f"nothing to check: group {group.name} has committed no offset of {topic}. Name the group with --group, or "
            "the end of the window with --to"
        )
    return found, notes


def _window(place: str, since: int | None, until: int, low: int, stable: int) -> tuple[int, int]:
    if since is None:
        since = min(low, until)
    elif since < low:
        raise SettingError(f"{place}: offset {since} is not retained any more; the first that is: {low}")
    if until > stable:
        raise SettingError(f"{place}: offset {until} is past the end of what is committed, {stable}")
    if since > until:
        raise SettingError(f"{place}: the window would begin at {since} and end at {until}")
    return since, until
