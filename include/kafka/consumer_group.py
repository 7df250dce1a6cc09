"""A consumer group's committed offsets on one topic: the only record of how far its payments are processed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from include.errors import BrokerUnresponsiveError, ClusterError, HangingTransactionError
from include.kafka.cluster import COORDINATOR_MOVES, Cluster, Topic, retry_on
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.fenced_producers import FencedProducers, fence_in_slices

# Long enough for a busy broker, short enough to notice an open transaction soon.
_COMMITTED_SECONDS = 5.0
_VISIBLE_SECONDS = 30.0
# A number that no partition has.
_NO_PARTITION = 2**31 - 1


@dataclass(frozen=True)
class ConsumerGroup:
    """A group and a topic. `consumer` belongs to the group but is no member of it: it only reads."""

    cluster: Cluster
    name: str
    topic: Topic
    consumer: Consumer

    @classmethod
    @contextmanager
    def open(cls, cluster: Cluster, name: str, topic: Topic) -> Iterator[ConsumerGroup]:
        """Yield the group with a consumer, which is closed afterwards."""
        with cluster.consumer(name) as consumer:
            yield cls(cluster, name, topic, consumer)

    def committed_offsets(self, partitions: Iterable[int] | None = None) -> dict[int, CommittedOffset]:
        """Return the committed offset of each partition, by default of all partitions of the topic.

        Raise HangingTransactionError while a transaction is open on one of them, BrokerUnresponsiveError if the
        group's coordinator does not answer, and ClusterError for other failures.
        """
        topic = self.topic.name
        numbers = self.topic.partitions if partitions is None else partitions
        try:
            found = self._request([TopicPartition(topic, number) for number in numbers])
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT:
                self._require_coordinator()
                raise HangingTransactionError(
                    f"committed offsets of {topic} are not stable after {_COMMITTED_SECONDS:g} s: a transaction is "
                    "open on them. If this lasts, run `kafka-transactions.sh find-hanging`, then `abort`"
                ) from error
            with self.cluster.translate_errors(f"committed offsets of {topic} cannot be read"):
                raise
        for one in found:
            if one.error is not None:
                with self.cluster.translate_errors(f"committed offset of {topic}/{one.partition} cannot be read"):
                    raise KafkaException(one.error)
        return {
            one.partition: CommittedOffset(one.offset if one.offset >= 0 else None, CommitNote.decode(one.metadata))
            for one in found
        }

    def await_commit(self, partition: int, offset: int, note: CommitNote, before: CommittedOffset) -> CommittedOffset:
        """Return the committed offset once it differs from `before`: our commit, or another program's after it.

        The broker acknowledges a transaction's commit before its markers are written, which may take a moment. Raise
        ClusterError if the offset is still `before` after 30 seconds, BrokerUnresponsiveError if nobody answers.
        """
        until = time.monotonic() + _VISIBLE_SECONDS
        current: CommittedOffset | None = None
        unresponsive: BrokerUnresponsiveError | None = None
        while time.monotonic() < until:
            try:
                current = self.committed_offsets([partition])[partition]
            except HangingTransactionError:
                unresponsive = None
                continue
            except BrokerUnresponsiveError as error:
                unresponsive = error
                continue
            if current.note == note or current != before:
                return current
            time.sleep(0.05)
        if unresponsive is not None:
            raise unresponsive
        raise ClusterError(
            f"{self.topic.name}/{partition}: the broker acknowledged the commit of offset {offset}, but after "
            f"{_VISIBLE_SECONDS:g} s the committed offset is {current.offset if current else 'not stable'}: a "
            "transaction may be hanging. Run `kafka-transactions.sh find-hanging`"
        )

    def fence(self, partitions: Iterable[int]) -> Iterator[FencedProducers]:
        """Fence every producer of these partitions: see `fence_in_slices`."""
        return fence_in_slices(self.cluster, self.name, self.topic.name, partitions)

    def _require_coordinator(self) -> None:
        """Raise BrokerUnresponsiveError if the group's coordinator does not answer.

        Both an open transaction and a silent coordinator time out. A coordinator that is up answers at once for a
        partition that does not exist, because no transaction can be open on it.
        """
        try:
            self._request([TopicPartition(self.topic.name, _NO_PARTITION)])
        except KafkaException as error:
            raise BrokerUnresponsiveError(
                f"committed offsets of {self.topic.name} cannot be read: {self.cluster.describe_error(error.args[0])}"
            ) from error

    @retry_on(*COORDINATOR_MOVES)
    def _request(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return self.consumer.committed(partitions, timeout=_COMMITTED_SECONDS)
