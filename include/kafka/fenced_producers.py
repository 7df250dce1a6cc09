"""Transactional producers, which fence every earlier producer of their partitions.

A transactional id names group, topic and partition, and nothing else. So a newer attempt fences every older one, even
if another worker, run or number of shards started it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException, Producer

from include.errors import ClusterError
from include.kafka.client_config import ClientConfig, transactional_config
from include.kafka.client_errors import ClientErrors
from include.kafka.cluster import Cluster

log = logging.getLogger(__name__)

_INIT_SECONDS = 60.0
# After this time a client without a response is replaced by a new one.
_CLIENT_SECONDS = 15.0
# At most so many producers are open at once: each has about four threads and a queue.
_SLICE = 24


def transactional_id(group: str, topic: str, partition: int) -> str:
    """Return the transactional id of every producer that commits the group's offset of this partition."""
    return f"{group}/{topic}/{partition}"


class FencedProducers:
    """Producers by partition, ready for a transaction. Looking up one that could not be created raises its error."""

    def __init__(self, producers: dict[int, Producer | ClusterError]) -> None:
        self._producers = producers

    def __iter__(self) -> Iterator[int]:
        return iter(self._producers)

    def __getitem__(self, partition: int) -> Producer:
        producer = self._producers[partition]
        if isinstance(producer, ClusterError):
            raise producer
        return producer

    def close(self) -> None:
        """Drop the producers: librdkafka stops their threads with the last reference."""
        self._producers.clear()


def fence(cluster: Cluster, group: str, topic: str, partitions: Iterable[int]) -> FencedProducers:
    """Initialize a transactional producer for each partition, in parallel.

    Afterwards the broker rejects every earlier producer of these partitions, and has aborted its open transaction.
    """

    def create(partition: int) -> tuple[int, Producer | ClusterError]:
        until = time.monotonic() + _INIT_SECONDS
        config = transactional_config(cluster.config, transactional_id(group, topic, partition))
        while True:
            try:
                with cluster.translate_errors(f"{topic}/{partition}: earlier producers cannot be fenced"):
                    deadline = min(time.monotonic() + _CLIENT_SECONDS, until)
                    return partition, _create_producer(cluster, config, topic, deadline)
            except ClusterError as error:
                if not _lost_all_brokers(error) or time.monotonic() >= until:
                    return partition, error
                log.info("%s; trying again with a new client", error)

    with ThreadPoolExecutor(_SLICE) as threads:
        return FencedProducers(dict(threads.map(create, partitions)))


def fence_in_slices(cluster: Cluster, group: str, topic: str, partitions: Iterable[int]) -> Iterator[FencedProducers]:
    """Yield the fenced producers in slices of at most 24 partitions; a partition is fenced when its slice is yielded.

    Each slice is closed when the next one is requested, so that threads and memory do not grow with the partitions.
    """
    numbers = list(partitions)
    for begin in range(0, len(numbers), _SLICE):
        producers = fence(cluster, group, topic, numbers[begin : begin + _SLICE])
        yield producers
        producers.close()


def _create_producer(cluster: Cluster, config: ClientConfig, topic: str, until: float) -> Producer:
    def seconds_left() -> float:
        # At least a second, because librdkafka takes a negative timeout for no limit.
        return max(1.0, until - time.monotonic())

    errors = ClientErrors(cluster.config)
    producer = Producer(config | {"error_cb": errors})
    # The bootstrap connection closes after its first response. librdkafka 2.16 waits half a second if it has to find
    # the transaction coordinator before another connection is up, so two metadata requests come first. They name the
    # topic, because the user may lack the right to list all topics.
    with errors.raise_cause(producer):
        for _ in range(2):
            producer.list_topics(topic, seconds_left())
        producer.init_transactions(seconds_left())
    return producer


def _lost_all_brokers(error: ClusterError) -> bool:
    """Return whether a new client may succeed.

    A broker that was away for a moment may answer with metadata without any broker. After that librdkafka 2.16 never
    reconnects, with any metadata.recovery.strategy.
    """
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT)
