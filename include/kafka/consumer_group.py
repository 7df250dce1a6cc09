"""A consumer group's committed offsets on one topic: reads them, and fences the producers that commit them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from include.errors import BrokerUnresponsiveError, ClusterError, HangingTransactionError
from include.kafka.cluster import COORDINATOR_ERRORS, Cluster, Topic, retry_on
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.transactional_producers import TransactionalProducers, fence_in_slices

# Long enough for a busy broker, short enough to notice an open transaction soon.
_READ_SECONDS = 5.0
_COMMIT_VISIBLE_SECONDS = 30.0
# A number that no partition has.
_NO_PARTITION = 2**31 - 1


@dataclass(frozen=True)
class ConsumerGroup:
    """A group and a topic. `consumer` has the group's id but does not join it, so it is never a member."""

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

        Raise HangingTransactionError if a transaction stays open on one of them for 5 seconds, hanging or only slow.
        Raise BrokerUnresponsiveError if the group's coordinator does not answer, and ClusterError for other failures.
        """
        topic = self.topic.name
        numbers = self.topic.partitions if partitions is None else partitions
        try:
            committed = self._request([TopicPartition(topic, number) for number in numbers])
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT:
                self._require_coordinator()
                raise HangingTransactionError(
                    f"committed offsets of {topic} are not stable after {_READ_SECONDS:g} s: a transaction is "
                    "open on them. If this lasts, run `kafka-transactions.sh find-hanging`, then `abort`"
                ) from error
            with self.cluster.translate_errors(f"committed offsets of {topic} cannot be read"):
                raise
        for answer in committed:
            if answer.error is not None:
                with self.cluster.translate_errors(f"committed offset of {topic}/{answer.partition} cannot be read"):
                    raise KafkaException(answer.error)
        return {
            answer.partition: CommittedOffset(
                answer.offset if answer.offset >= 0 else None, CommitNote.decode(answer.metadata)
            )
            for answer in committed
        }

    def await_commit(self, partition: int, offset: int, note: CommitNote, before: CommittedOffset) -> CommittedOffset:
        """Wait until our acknowledged commit of `offset` with `note` is visible, and return the committed offset.

        The broker acknowledges a transaction's commit a moment before the committed offset changes. `before` is the
        committed offset before our commit. The result has `note`, or it differs from `before` in offset or note: then
        another program has committed too. Raise after 30 seconds without a change: BrokerUnresponsiveError if the
        coordinator did not answer the last request, else ClusterError.
        """
        deadline = time.monotonic() + _COMMIT_VISIBLE_SECONDS
        current: CommittedOffset | None = None
        unresponsive: BrokerUnresponsiveError | None = None
        while time.monotonic() < deadline:
            try:
                current = self.committed_offsets([partition])[partition]
            except HangingTransactionError:
                current = unresponsive = None
                continue
            except BrokerUnresponsiveError as error:
                current, unresponsive = None, error
                continue
            unresponsive = None
            if current.note == note or current != before:
                return current
            time.sleep(0.05)
        if unresponsive is not None:
            raise unresponsive
        outcome = (
            f"the committed offset is still {current.offset}: check the brokers"
            if current
            else "a transaction is open on it. Run `kafka-transactions.sh find-hanging`"
        )
        raise ClusterError(
            f"{self.topic.name}/{partition}: the broker acknowledged the commit of offset {offset}, but after "
            f"{_COMMIT_VISIBLE_SECONDS:g} s {outcome}"
        )

    def fence(self, partitions: Iterable[int]) -> Iterator[TransactionalProducers]:
        """Fence the producers with the partitions' transactional ids, and yield new ones: see `fence_in_slices`."""
        return fence_in_slices(self.cluster, self.name, self.topic.name, partitions)

    def _require_coordinator(self) -> None:
        """Raise BrokerUnresponsiveError if a request to the group's coordinator fails.

        A request for committed offsets times out if a transaction is open on them, and also if the coordinator does not
        answer. This request is for a partition that does not exist. No transaction can be open on it, so a timeout
        means that the coordinator does not answer (or that the right Describe is missing: see `describe_group`).
        """
        try:
            self._request([TopicPartition(self.topic.name, _NO_PARTITION)])
        except KafkaException as error:
            raise BrokerUnresponsiveError(
                f"committed offsets of {self.topic.name} cannot be read: {self.cluster.describe_error(error.args[0])}"
            ) from error

    @retry_on(*COORDINATOR_ERRORS)
    def _request(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return self.consumer.committed(partitions, timeout=_READ_SECONDS)
