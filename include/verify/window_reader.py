"""Reads committed messages between two offsets, without the reader that scoring uses, because it verifies that one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from include.errors import ClusterError
from include.kafka.cluster import REQUEST_SECONDS, Cluster

Windows = Mapping[int, tuple[int, int]]
OnProgress = Callable[[str, float], None]
"""Called with a text and the share of the window's offsets that are read (0 to 1), after each chunk."""

_MAX_MESSAGES = 10_000
# Longer than any batch takes between its first message and its commit.
_QUIET_SECONDS = 60.0
# librdkafka's _PARTITION_EOF, and the client's _AUTO_OFFSET_RESET and the broker's OFFSET_OUT_OF_RANGE.
_PARTITION_EOF = -191
_OFFSET_EXPIRED = (-140, 1)


def read_window(
    cluster: Cluster, consumer: Consumer, topic: str, windows: Windows, on_progress: OnProgress
) -> Iterator[Message]:
    """Yield the messages of `[start, end)` of each partition, as a reader of committed messages sees them.

    Raise ClusterError with the reason if an end is not reached: the broker does not answer, a Kafka transaction stays
    open, or offsets expire.
    """
    ends = {partition: end for partition, (start, end) in windows.items() if start < end}
    done = 0
    total = sum(end - windows[partition][0] for partition, end in ends.items())
    with cluster.translate_errors(f"{topic} cannot be read"):
        # Without this, librdkafka learns the partitions' leaders only a second later.
        consumer.list_topics(topic, timeout=REQUEST_SECONDS)
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in ends])
    last_message = time.monotonic()
    while ends:
        with cluster.translate_errors(f"{topic} cannot be read"):
            polled = consumer.consume(_MAX_MESSAGES, timeout=0.05)
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
            last_message = now
        elif now - last_message > _QUIET_SECONDS:
            raise ClusterError(
                f"reading {topic}: no message for {_QUIET_SECONDS:g} s: {_explain_silence(cluster, topic, ends)}"
            )
        on_progress(f"{topic}: {done:,} messages of {total:,} offsets read", done / total)


def _explain_silence(cluster: Cluster, topic: str, ends: Mapping[int, int]) -> str:
    """Return why no message arrives. Raise ClusterError if the broker does not answer."""
    stable = cluster.last_stable_offsets(topic, ends)
    high = cluster.high_watermarks(topic, ends)
    held = [f"{at} (to {end}, stable to {stable[at]})" for at, end in sorted(ends.items()) if stable[at] < high[at]]
    if held:
        return f"a Kafka transaction is open on these partitions: {', '.join(held)}; try again when it has ended"
    unread = ", ".join(f"{partition} (to {end})" for partition, end in sorted(ends.items()))
    return (
        f"partitions not read to their end offsets: {unread}. No Kafka transaction is open and the broker answers; "
        "try again"
    )


def _require_end_of_partition(message: Message, cluster: Cluster, topic: str) -> None:
    error = message.error()
    if error is None or error.code() == _PARTITION_EOF:
        return
    if error.code() in _OFFSET_EXPIRED:
        raise ClusterError(
            f"reading {topic}/{message.partition()}: offsets expired while they were read: start at a later one"
        )
    with cluster.translate_errors(f"{topic}/{message.partition()} cannot be read"):
        raise KafkaException(error)
