"""Reads what a reader of committed messages sees between two offsets. Not the scoring's own reader, which it checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from include.errors import ClusterError
from include.kafka.cluster import REQUEST_SECONDS, Cluster

Windows = Mapping[int, tuple[int, int]]
OnProgress = Callable[[str, float], None]
"""Called with a text and the share of the window's offsets that are read (0 to 1), after each chunk."""

_AT_ONCE = 10_000
# Longer than any batch of the scoring takes between its first message and its commit.
_QUIET_SECONDS = 60.0
_PARTITION_EOF = -191
_OFFSET_GONE = (-140, 1)  # of the client (no reset is allowed), and of the broker


def read(
    cluster: Cluster, consumer: Consumer, topic: str, windows: Windows, on_progress: OnProgress
) -> Iterator[Message]:
    """Raises ClusterError, which says why, where an end is not reached: a broker that is silent, or a kafka transaction
    that stays open."""
    ends = {partition: end for partition, (start, end) in windows.items() if start < end}
    done = 0
    whole = sum(end - windows[partition][0] for partition, end in ends.items())
    with cluster.translate_errors(f"{topic} cannot be read"):
        # Else the client finds the partitions' leaders a second later.
        consumer.list_topics(topic, timeout=REQUEST_SECONDS)
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in ends])
    heard = time.monotonic()
    while ends:
        with cluster.translate_errors(f"{topic} cannot be read"):
            polled = consumer.consume(_AT_ONCE, timeout=0.2)
        for message in polled:
            partition, offset = message.partition() or 0, message.offset()
            if partition not in ends or offset is None:
                continue
            end = ends[partition]
            if message.error() is None:
                if offset < end:
                    done += 1
                    yield message
                offset += 1
            else:
                _require_end_of_partition(message, cluster, topic)
            if offset >= end:
                del ends[partition]
                consumer.incremental_unassign([TopicPartition(topic, partition)])
        now = time.monotonic()
        if any(message.error() is None for message in polled):
            heard = now
        elif now - heard > _QUIET_SECONDS:
            raise ClusterError(
                f"reading {topic}: nothing more came for {_QUIET_SECONDS:g} s, but {_why_quiet(cluster, topic, ends)}"
            )
        on_progress(f"{topic}: {done:,} messages of {whole:,} offsets read", done / whole)


def _why_quiet(cluster: Cluster, topic: str, ends: Mapping[int, int]) -> str:
    """Raises ClusterError where the broker does not answer."""
    stable = cluster.last_stable_offsets(topic, ends)
    high = cluster.high_watermarks(topic, ends)
    held = [f"{at} (to {end}, stable to {stable[at]})" for at, end in sorted(ends.items()) if stable[at] < high[at]]
    if held:
        return f"a kafka transaction is open on these partitions: {', '.join(held)}; try again when it has ended"
    whole = ", ".join(f"{partition} (to {end})" for partition, end in sorted(ends.items()))
    return (
        f"partitions not read to their end offsets: {whole}. No kafka transaction is open and the broker answers; "
        "try again"
    )


def _require_end_of_partition(message: Message, cluster: Cluster, topic: str) -> None:
    error = message.error()
    if error is None or error.code() == _PARTITION_EOF:
        return
    if error.code() in _OFFSET_GONE:
        raise ClusterError(
            f"reading {topic}/{message.partition()}: offsets of the window expired while it was read; begin later"
        )
    with cluster.translate_errors(f"{topic}/{message.partition()} cannot be read"):
        raise KafkaException(error)
