"""Transactional producers, one for each partition of a group's topic. A new one fences the earlier ones.

The transactional id of a partition's producers consists of group, topic and partition only. So a newer attempt fences
every older one, also of another worker, another run or another number of shards: the broker rejects what those send.
A producer may write to any topic; its partition is the one whose offset it commits.
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
# A client that has no response after this time is replaced by a new one.
_CLIENT_SECONDS = 15.0
# Each producer has about four threads and a queue.
_SLICE_PARTITIONS = 24


def transactional_id(group: str, topic: str, partition: int) -> str:
    """Return the transactional id that all producers have which commit the group's offset of this partition."""
    return f"{group}/{topic}/{partition}"


class TransactionalProducers:
    """New producers by partition, ready for a transaction. They have fenced the earlier ones with the same ids.

    `producers[partition]` raises ClusterError if that partition's producer could not be created.
    """

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
        """Drop the producers. librdkafka stops the threads of a producer when no reference to it is left."""
        self._producers.clear()


def fence(cluster: Cluster, group: str, topic: str, partitions: Iterable[int]) -> TransactionalProducers:
    """Create a transactional producer for each partition, in parallel.

    The broker then rejects every earlier producer with the same transactional id, and has aborted its open transaction.
    """

    def create(partition: int) -> tuple[int, Producer | ClusterError]:
        deadline = time.monotonic() + _INIT_SECONDS
        config = transactional_config(cluster.config, transactional_id(group, topic, partition))
        while True:
            try:
                with cluster.translate_errors(f"{topic}/{partition}: earlier producers cannot be fenced"):
                    client_deadline = min(time.monotonic() + _CLIENT_SECONDS, deadline)
                    return partition, _create_producer(cluster, config, topic, client_deadline)
            except ClusterError as error:
                if not _got_no_response(error) or time.monotonic() >= deadline:
                    return partition, error
                log.info("%s; trying again with a new client", error)

    with ThreadPoolExecutor(_SLICE_PARTITIONS) as threads:
        return TransactionalProducers(dict(threads.map(create, partitions)))


def fence_in_slices(
    cluster: Cluster, group: str, topic: str, partitions: Iterable[int]
) -> Iterator[TransactionalProducers]:
    """Yield new producers for slices of at most 24 partitions. A partition is fenced when its slice is yielded.

    The producers of a slice are closed when the next slice is requested, so that threads and memory do not grow with
    the number of partitions.
    """
    numbers = list(partitions)
    for start in range(0, len(numbers), _SLICE_PARTITIONS):
        producers = fence(cluster, group, topic, numbers[start : start + _SLICE_PARTITIONS])
        yield producers
        producers.close()


def _create_producer(cluster: Cluster, config: ClientConfig, topic: str, deadline: float) -> Producer:
    def seconds_left() -> float:
        # At least a second, because librdkafka treats a negative timeout as none.
        return max(1.0, deadline - time.monotonic())

    errors = ClientErrors(cluster.config)
    producer = Producer(config | {"error_cb": errors})
    # The bootstrap connection closes after its first response. If no other connection is up when librdkafka 2.16 looks
    # for the transaction coordinator, it waits half a second. Two metadata requests open one first. They name the
    # topic, because the user may lack the right to list all topics.
    with errors.raise_cause(producer):
        for _ in range(2):
            producer.list_topics(topic, seconds_left())
        producer.init_transactions(seconds_left())
    return producer


def _got_no_response(error: ClusterError) -> bool:
    """Return whether a request lost its connection or timed out, for no other known cause. A new client may succeed.

    The brokers may be down, but the client may also have lost them: a broker that has just started may answer with
    metadata that lists no brokers, and after that librdkafka 2.16 never reconnects, whatever metadata.recovery.strategy
    is. The error codes are the same.
    """
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT)
