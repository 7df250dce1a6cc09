"""The offsets to verify: the window of the input topic, and the ranges of the outputs that can matter for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from include.errors import SettingError
from include.kafka.cluster import Cluster
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.offset_targets import parse_time

Bound = int | datetime
# Either may start with digits: no colon follows the year of a time.
_BOUND = re.compile(r"(?:(\d+):)?(.+)", re.ASCII)
# How far the clock of a producer of payments may be ahead of the clock of a worker that scores them.
_MAX_CLOCK_DIFFERENCE_MS = 3_600_000


@dataclass(frozen=True)
class Bounds:
    """An offset or a time for all partitions, and one for single partitions, which takes precedence."""

    default: Bound | None = None
    by_partition: Mapping[int, Bound] = field(default_factory=dict)

    def get(self, partition: int) -> Bound | None:
        """Return the bound of a partition, None if it has none."""
        return self.by_partition.get(partition, self.default)

    @classmethod
    def parse(cls, option: str, texts: list[str]) -> Bounds:
        """Parse `OFFSET`, `TIME`, `PARTITION:OFFSET` or `PARTITION:TIME`, the values of a command's option.

        Raise SettingError, with the option, for an invalid value.
        """
        default, by_partition = None, {}
        for text in texts:
            found = _BOUND.fullmatch(text)
            partition, value = found.groups() if found else (None, text)
            is_offset = value.isdecimal() and value.isascii()
            bound = int(value) if is_offset else parse_time(option, value, "OFFSET or PARTITION:OFFSET, or")
            if partition is None:
                default = bound
            else:
                by_partition[int(partition)] = bound
        return cls(default, by_partition)

    def to_offsets(
        self, offsets_at: Callable[[datetime], Mapping[int, int]], partitions: tuple[int, ...]
    ) -> dict[int, int]:
        """Return the offset of each partition that has a bound. `offsets_at` returns the first offsets since a time."""
        bounds = {number: bound for number in partitions if (bound := self.get(number)) is not None}
        times = {time: offsets_at(time) for time in set(bounds.values()) if isinstance(time, datetime)}
        return {
            number: times[bound][number] if isinstance(bound, datetime) else bound for number, bound in bounds.items()
        }


def choose_window(group: ConsumerGroup, start: Bounds, end: Bounds) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """Return `[start, end)` by partition, and notes about partitions that are not checked.

    Raise SettingError if a bound is out of range or no partition can be checked.
    """
    cluster, topic, partitions = group.cluster, group.topic.name, group.topic.partitions
    for partition in sorted({*start.by_partition, *end.by_partition} - set(partitions)):
        raise SettingError(f"{topic} has no partition {partition}: it has {len(partitions)}, counted from 0")
    # Without the right Read on the group, reading its committed offsets would time out; this raises the cause.
    cluster.describe_group(group.name)
    committed = group.committed_offsets()
    low = cluster.first_offsets(topic, partitions)
    stable = cluster.last_stable_offsets(topic, partitions)

    def offsets_at(time: datetime) -> dict[int, int]:
        found = cluster.offsets_at(topic, partitions, int(time.timestamp() * 1000))
        return {number: stable[number] if at is None else min(at, stable[number]) for number, at in found.items()}

    starts, ends = start.to_offsets(offsets_at, partitions), end.to_offsets(offsets_at, partitions)
    window, notes = {}, []
    for partition in partitions:
        name, first = f"{topic}/{partition}", low[partition]
        last = ends.get(partition, committed[partition].offset)
        if last is not None:
            if isinstance(start.get(partition), datetime):
                # Nothing since that time may have been scored yet.
                starts[partition] = min(starts[partition], last)
            if partition not in starts and last < first:
                notes.append(f"{name}: not checked: its first retained offset is {first}, its end {last}")
            window[partition] = _window(name, starts.get(partition), last, first, stable[partition])
        elif first < stable[partition]:
            notes.append(f"{name}: not checked: group {group.name} has committed no offset there")
    if not window:
        raise SettingError(
            f"nothing to check: group {group.name} has committed no offset of {topic}. Name the group with --group, or "
            "the end of the window with --to"
        )
    return window, notes


def _window(name: str, start: int | None, end: int, first: int, stable: int) -> tuple[int, int]:
    if start is None:
        start = min(first, end)
    elif start < first:
        raise SettingError(f"{name}: offset {start} has expired: start at {first}, the first retained offset, or later")
    if end > stable:
        raise SettingError(f"{name}: offset {end} is past the last stable offset {stable}: end there or earlier")
    if start > end:
        raise SettingError(f"{name}: the window starts at {start} and ends at {end}: give a later end")
    return start, end


def find_output_range(
    cluster: Cluster, topic: str, earliest_ms: int
) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Return by partition the first retained offset, the first one that can matter, and the end.

    The output of a message with the timestamp `earliest_ms` or later comes after the second. The end is read after the
    committed offsets and includes open transactions: the marker of a commit may come a moment later than the offset
    that it commits.
    """
    partitions = cluster.describe_topic(topic).partitions
    low = cluster.first_offsets(topic, partitions)
    end = cluster.high_watermarks(topic, partitions)
    start = cluster.offsets_at(topic, partitions, earliest_ms - _MAX_CLOCK_DIFFERENCE_MS)
    return low, {number: end[number] if at is None else min(at, end[number]) for number, at in start.items()}, end
