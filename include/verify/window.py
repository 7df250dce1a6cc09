"""Which offsets of the input topic are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer

from include.errors import SettingError
from include.kafka.access import Admin
from include.kafka.config import Settings
from include.kafka.ends import first_offsets, last_stable_offsets
from include.kafka.offsets import committed_offsets, describe_group, describe_topic


@dataclass(frozen=True)
class Bounds:
    """An offset for all partitions, and those of single ones, which go before it."""

    everywhere: int | None = None
    single: Mapping[int, int] = field(default_factory=dict)

    def of(self, partition: int) -> int | None:
        return self.single.get(partition, self.everywhere)

    @classmethod
    def parse(cls, option: str, texts: list[str]) -> Bounds:
        """Of `OFFSET` or `PARTITION:OFFSET`, each at most once."""
        everywhere, single = None, {}
        for text in texts:
            before, colon, offset = text.rpartition(":")
            if not (offset.isdecimal() and offset.isascii() and (before.isdecimal() if colon else not before)):
                raise SettingError(f"{option} {text}: give OFFSET or PARTITION:OFFSET")
            if not colon:
                everywhere = int(offset)
            else:
                single[int(before)] = int(offset)
        return cls(everywhere, single)


def windows(
    admin: Admin, consumer: Consumer, kafka: Settings, topic: str, group: str, start: Bounds, end: Bounds
) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """`[start, end)` by partition, and what to tell of partitions that are not checked."""
    partitions = describe_topic(admin, kafka, topic).partitions
    for partition in sorted({*start.single, *end.single} - set(partitions)):
        raise SettingError(f"{topic} has no partition {partition}")
    describe_group(admin, kafka, group)
    committed = committed_offsets(consumer, kafka, topic, partitions)
    low = first_offsets(admin, kafka, topic, partitions)
    stable = last_stable_offsets(admin, kafka, topic, partitions)
    found, notes = {}, []
    for partition in partitions:
        until = end.of(partition)
        if until is None:
            until = committed[partition].offset
        if until is not None:
            if start.of(partition) is None and until < low[partition]:
                notes.append(f"{topic}/{partition}: not checked, for it begins at offset {low[partition]} by now")
            found[partition] = _window(
                f"{topic}/{partition}", start.of(partition), until, low[partition], stable[partition]
            )
        elif low[partition] < stable[partition]:
            notes.append(f"{topic}/{partition}: not checked, for group {group} has committed no offset there")
    if not found:
        raise SettingError(
            f"nothing to check: group {group} has committed no offset of {topic}. Name the group with --group, or the "
            "end of the window with --to"
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
