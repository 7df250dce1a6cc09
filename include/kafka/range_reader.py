"""Reads given offset ranges of a topic: committed messages only, without joining the group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import methodcaller

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from include.errors import ClusterError
from include.kafka.cluster import Cluster

# For one call of `consume`. Few, so that the caller can begin to store the first messages while others are read.
_MAX_MESSAGES = 1_000
_STALL_SECONDS = 60.0
_get_partition, _get_error = methodcaller("partition"), methodcaller("error")

# A partition and some of its messages, in the order of their offsets.
PartitionMessages = tuple[int, list[Message]]


def read_ranges(
    cluster: Cluster, consumer: Consumer, topic: str, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[PartitionMessages]:
    """Yield a partition and its next messages until all offset ranges `[start, end)` are read.

    Control records and aborted messages have offsets but are not delivered. So a partition is done when a message, an
    end-of-partition event or the consumer's position reaches `end`, not after a number of messages or an empty poll.
    Messages of one partition come in the order of their offsets; partitions alternate.

    Raise ClusterError if an offset has expired, the broker reports an error, or nothing arrives for 60 seconds.
    """
    ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
    if not ends:
        return
    with cluster.translate_errors(f"{topic} cannot be read"):
        # Request the partitions' leaders first: librdkafka looks for unknown leaders only once a second, and a consumer
        # that has only requested committed offsets does not know them.
        consumer.list_topics(topic, _STALL_SECONDS)
    consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in ends])
    last_received = time.monotonic()
    # Never request more messages than there are offsets, or the last `consume` would wait for its whole timeout.
    left = sum(ends.values()) - sum(ranges[partition][0] for partition in ends)
    while ends:
        with cluster.translate_errors(f"{topic} cannot be read"):
            polled = consumer.consume(max(1, min(left, _MAX_MESSAGES)), timeout=0.05)
        received, done = _split_at_ends(polled, ends, cluster, topic)
        for partition, messages in received:
            # Count only messages before their range's end. With later ones, `left` would fall to 1 too early, and
            # reading one message per call is slow.
            left -= len(messages)
            yield partition, messages
        if polled:
            last_received = time.monotonic()
        else:
            positions = consumer.position([TopicPartition(topic, partition) for partition in ends])
            done = {position.partition for position in positions if position.offset >= ends[position.partition]}
        for partition in done:
            del ends[partition]
        if done and ends:
            consumer.incremental_unassign([TopicPartition(topic, partition) for partition in done])
        if ends and time.monotonic() - last_received > _STALL_SECONDS:
            raise ClusterError(
                f"{topic} cannot be read: nothing arrived for {_STALL_SECONDS:g} s, and these partitions are not read "
                f"to their ends: {', '.join(f'{partition} (to {end})' for partition, end in sorted(ends.items()))}. "
                "Check the brokers"
            )


def _split_at_ends(
    polled: list[Message], ends: Mapping[int, int], cluster: Cluster, topic: str
) -> tuple[list[PartitionMessages], set[int]]:
    """Return the messages before their range's end, and the partitions that have reached it."""
    before_end: list[PartitionMessages] = []
    done: set[int] = set()
    for partition, polled_here in groupby(polled, _get_partition):
        end = ends.get(partition)
        if end is None:
            continue
        messages = list(polled_here)
        last = messages[-1]
        # An end-of-partition event has the offset of the next message.
        position = (last.offset() or 0) + (last.error() is None)
        if any(map(_get_error, messages)):
            for message in messages:
                _raise_error(message, cluster, topic)
            messages = [message for message in messages if message.error() is None]
        if position >= end:
            done.add(partition)
            if position > end:
                messages = [message for message in messages if (message.offset() or 0) < end]
        if messages:
            before_end.append((partition, messages))
    return before_end, done


def _raise_error(message: Message, cluster: Cluster, topic: str) -> None:
    """Raise ClusterError if the message is an error; an end-of-partition event is not."""
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise ClusterError(
            f"{topic}/{message.partition()} cannot be read: offsets of the range have expired; the next run starts at "
            "the first offset that is retained"
        )
    with cluster.translate_errors(f"{topic}/{message.partition()} cannot be read"):
        raise KafkaException(error)
