"""Reads exactly the given offset ranges, committed messages only, without joining the group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import methodcaller

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as Reason

from include.errors import KafkaError
from include.kafka.client_config import ClientConfig, explained

# Not many: whoever works beside the reader, as the ledger's writer does, has the next lot soon.
_AT_ONCE = 1_000
_STALL_SECONDS = 60.0
_PARTITION, _ERROR = methodcaller("partition"), methodcaller("error")

Run = tuple[int, list[Message]]


def read_ranges(
    consumer: Consumer, client: ClientConfig, topic: str, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[Run]:
    """Runs of messages of one partition each, in order within it; `ranges` are `[start, end)` by partition.

    Control records and aborted messages take offsets but yield nothing, so neither a count nor a quiet poll is an end:
    a partition is done when a message, the partition's end or the consumer's position reaches `end`.
    Raises KafkaError where that does not happen.
    """
    ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
    if not ends:
        return
    with explained(f"reading {topic}", client):
        # So that the partitions' leaders are known: a consumer that was asked for offsets before knows the coordinator
        # alone, and librdkafka looks for the others once a second.
        consumer.list_topics(topic, _STALL_SECONDS)
    consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in ends])
    heard = time.monotonic()
    # No more messages than offsets: asked for more, the last call would wait in vain for its whole timeout.
    left = sum(ends.values()) - sum(ranges[partition][0] for partition in ends)
    while ends:
        with explained(f"reading {topic}", client):
            polled = consumer.consume(max(1, min(left, _AT_ONCE)), timeout=0.2)
        runs, done = _sort(polled, ends, client, topic)
        for partition, messages in runs:
            # Messages past an end do not count: they would leave too few to ask for, and one by one is slow.
            left -= len(messages)
            yield partition, messages
        if polled:
            heard = time.monotonic()
        else:
            places = consumer.position([TopicPartition(topic, partition) for partition in ends])
            done = {place.partition for place in places if place.offset >= ends[place.partition]}
        for partition in done:
            del ends[partition]
        if done and ends:
            consumer.incremental_unassign([TopicPartition(topic, partition) for partition in done])
        if ends and time.monotonic() - heard > _STALL_SECONDS:
            raise KafkaError(
                f"reading {topic}: nothing came for {_STALL_SECONDS:g} s, but these partitions are not read to their "
                f"ends: {', '.join(f'{partition} (to {end})' for partition, end in sorted(ends.items()))}"
            )


def _sort(
    polled: list[Message], ends: Mapping[int, int], client: ClientConfig, topic: str
) -> tuple[list[Run], set[int]]:
    """The messages before their partition's end, and the partitions that are done."""
    runs: list[Run] = []
    done: set[int] = set()
    for partition, group in groupby(polled, _PARTITION):
        end = ends.get(partition)
        if end is None:
            continue
        messages = list(group)
        # The next offset is where the consumer stands now.
        last = messages[-1]
        reached = (last.offset() or 0) + (last.error() is None)
        if any(map(_ERROR, messages)):
            for message in messages:
                _require_partition_end(message, client, topic)
            messages = [message for message in messages if message.error() is None]
        if reached >= end:
            done.add(partition)
            if reached > end:
                messages = [message for message in messages if (message.offset() or 0) < end]
        if messages:
            runs.append((partition, messages))
    return runs, done


def _require_partition_end(message: Message, client: ClientConfig, topic: str) -> None:
    """The partition's end comes as an event; any other event is an error."""
    error = message.error()
    if error is None or error.code() == Reason._PARTITION_EOF:
        return
    if error.code() == Reason._AUTO_OFFSET_RESET:
        raise KafkaError(
            f"reading {topic}/{message.partition()}: these offsets are not retained any more; the next run begins "
            "where the topic begins"
        )
    with explained(f"reading {topic}/{message.partition()}", client):
        raise KafkaException(error)
