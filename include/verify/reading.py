"""Reads what a reader of committed messages sees between two offsets. Not the scoring's own reader, which it checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from include.errors import KafkaError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explained
from include.kafka.committed_offsets import REQUEST_SECONDS
from include.kafka.topic_offsets import high_watermarks, last_stable_offsets

Windows = Mapping[int, tuple[int, int]]
OnProgress = Callable[[str, float], None]
"""Called with a text and the share of the window's offsets that are read (0 to 1), after each chunk."""

_AT_ONCE = 10_000
# Longer than any batch of the scoring takes between its first message and its commit.
_QUIET_SECONDS = 60.0
_PARTITION_EOF = -191
_OFFSET_GONE = (-140, 1)  # of the client (no reset is allowed), and of the broker


def read(
    consumer: Consumer, kafka: ClientConfig, topic: str, windows: Windows, on_progress: OnProgress
) -> Iterator[Message]:
    """Raises KafkaError, which says why, where an end is not reached: a broker that is silent, or a kafka transaction
    that stays open."""
    ends = {partition: end for partition, (start, end) in windows.items() if start < end}
    done = 0
    whole = sum(end - windows[partition][0] for partition, end in ends.items())
    with explained(f"topic {topic} cannot be read", kafka):
        # Else the client finds the partitions' leaders a second later.
        consumer.list_topics(topic, timeout=REQUEST_SECONDS)
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in ends])
    heard = time.monotonic()
    while ends:
        with explained(f"reading {topic}", kafka):
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
                _require_end_of_partition(message, kafka, topic)
            if offset >= end:
                del ends[partition]
                consumer.incremental_unassign([TopicPartition(topic, partition)])
        now = time.monotonic()
        if any(message.error() is None for message in polled):
            heard = now
        elif now - heard > _QUIET_SECONDS:
            raise KafkaError(
                f"reading {topic}: nothing more came for {_QUIET_SECONDS:g} s, but {_why_quiet(kafka, topic, ends)}"
            )
        on_progress(f"{topic}: {done:,} messages of {whole:,} offsets read", done / whole)


def _why_quiet(kafka: ClientConfig, topic: str, ends: Mapping[int, int]) -> str:
    """Raises KafkaError where the broker does not answer."""
    admin = Admin(kafka)
    stable = last_stable_offsets(admin, kafka, topic, ends)
    high = high_watermarks(admin, kafka, topic, ends)
    held = [f"{at} (to {end}, stable to {stable[at]})" for at, end in sorted(ends.items()) if stable[at] < high[at]]
    if held:
        return f"a kafka transaction is open on these partitions: {', '.join(held)}; try again when it has ended"
    whole = ", ".join(f"{partition} (to {end})" for partition, end in sorted(ends.items()))
    return (
        f"partitions not read to their end offsets: {whole}. No kafka transaction is open and the broker answers; "
        "try again"
    )


def _require_end_of_partition(message: Message, kafka: ClientConfig, topic: str) -> None:
    error = message.error()
    if error is None or error.code() == _PARTITION_EOF:
        return
    if error.code() in _OFFSET_GONE:
        raise KafkaError(
            f"reading {topic}/{message.partition()}: offsets of the window expired while it was read; begin later"
        )
    with explained(f"reading {topic}/{message.partition()}", kafka):
        raise KafkaException(error)
