"""The consumer group's offsets and the topics' offsets, read and changed as operators' tools do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from dev.stack.kafka import admin
from tests.support.kafka_log import make_topic
from tests.support.waiting import wait_until


class Group:
    def __init__(self, servers: str, name: str = "fraud_scoring", topic: str = "topic_1") -> None:
        self._servers, self.name, self.topic = servers, name, topic
        self._admin = self._fresh_admin()

    def committed_if_settled(self) -> dict[int, int] | None:
        """Return the committed offsets, None while a Kafka transaction is open on them."""
        try:
            return self.committed(seconds=5)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT:
                return None
            raise

    def committed(self, seconds: float = 60) -> dict[int, int]:
        """Return the committed offsets by partition. Wait while a Kafka transaction is open on them."""
        consumer = self._reader()
        try:
            places = [TopicPartition(self.topic, number) for number in self._partitions(consumer, self.topic)]
            answers = self._committed(consumer, places, seconds)
        finally:
            consumer.close()
        return {place.partition: place.offset for place in answers if place.offset >= 0}

    def _committed(self, consumer: Consumer, places: list[TopicPartition], seconds: float) -> list[TopicPartition]:
        while True:
            try:
                return consumer.committed(places, timeout=seconds)
            except KafkaException as error:
                # A broker that has just started.
                if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                    raise
            time.sleep(0.3)

    def ends(self, topic: str = "", isolation: str = "read_uncommitted") -> dict[int, int]:
        """Return the high watermarks, or the last stable offsets with `read_committed`."""
        return {number: high for number, (_, high) in self._watermarks(topic or self.topic, isolation).items()}

    def lows(self) -> dict[int, int]:
        return {number: low for number, (low, _) in self._watermarks(self.topic, "read_uncommitted").items()}

    def await_no_open_transaction(self, *topics: str, seconds: float = 60) -> None:
        """A broker that is killed while markers are being written may leave a kafka transaction hanging for good."""
        deadline = time.monotonic() + seconds
        for topic in topics:
            while self.ends(topic) != self.ends(topic, "read_committed"):
                assert time.monotonic() < deadline, f"a kafka transaction stays open on {topic}"
                time.sleep(0.1)

    def set(self, offsets: Mapping[int, int]) -> None:
        """Set offsets as `kafka-consumer-groups.sh --reset-offsets` does, without fencing."""
        places = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        wanted = ConsumerGroupTopicPartitions(self.name, places)

        def alter() -> None:
            client = self._fresh_admin()
            (done,) = client.alter_consumer_group_offsets([wanted], request_timeout=10).values()
            assert not [answer.error for answer in done.result(timeout=15).topic_partitions if answer.error]

        _retried(alter)

    def forget(self) -> None:
        """Delete the group's offsets, as if they had expired."""

        def delete() -> None:
            client = self._fresh_admin()
            client.delete_consumer_groups([self.name], request_timeout=10)[self.name].result(15)

        _retried(delete)

    @contextmanager
    def joined_by_stranger(self, *, commits: bool = False) -> Iterator[None]:
        """Join the group with a foreign consumer, client id `a-stranger`. With `commits` it commits the end offsets."""
        settings = {"group.id": self.name, "client.id": "a-stranger", "enable.auto.commit": False}
        stranger = Consumer({"bootstrap.servers": self._servers} | settings)
        try:
            stranger.subscribe([self.topic])
            until = time.monotonic() + 60
            while not stranger.assignment():
                assert time.monotonic() < until, "the stranger could not join"
                stranger.poll(0.1)
            if commits:
                ends = [TopicPartition(self.topic, partition, end) for partition, end in self.ends().items()]
                stranger.commit(offsets=ends, asynchronous=False)
            yield
        finally:
            stranger.close()

    def expire(self, before: Mapping[int, int]) -> None:
        """Delete messages before these offsets, as the topic's retention does."""
        self._delete([TopicPartition(self.topic, partition, offset) for partition, offset in before.items()])

    def empty(self, *topics: str) -> None:
        """Let all messages expire."""
        for topic in topics:
            self._delete([TopicPartition(topic, partition, end) for partition, end in self.ends(topic).items()])

    def _delete(self, places: list[TopicPartition]) -> None:
        def delete() -> None:
            # The leaders that an old client knows may be none any more.
            client = self._fresh_admin()
            for answer in client.delete_records(places).values():
                answer.result(timeout=30)

        _retried(delete)

    def add_partitions(self, total: int) -> None:
        self._admin.create_partitions([NewPartitions(self.topic, total)])[self.topic].result(timeout=30)
        self._await_leaders(total)

    def make_topic_again(self, partitions: int) -> None:
        self._admin.delete_topics([self.topic])[self.topic].result(timeout=30)
        gone = f"{self.topic} does not go away"
        wait_until(lambda: self.topic not in self._admin.list_topics(timeout=10).topics, gone, 30)
        make_topic(self._servers, partitions, name=self.topic)
        self._await_leaders(partitions)

    def _await_leaders(self, partitions: int) -> None:
        wait_until(lambda: self._has_leaders(partitions), f"{self.topic} does not get its partitions", 30)

    def _has_leaders(self, partitions: int) -> bool:
        try:
            return len(self.ends()) >= partitions
        except KafkaException:
            return False

    def _fresh_admin(self) -> AdminClient:
        """One that lived through a broker's restart may go on asking a coordinator that is none any more.

        To be held until it has answered: one that is not referred to any more is closed, and its answer never comes.
        """
        return admin({"bootstrap.servers": self._servers, "log_level": 0})

    def _reader(self, isolation: str = "read_committed") -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": self.name,
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "log_level": 0,
            }
        )

    def _watermarks(self, topic: str, isolation: str) -> dict[int, tuple[int, int]]:
        consumer = self._reader(isolation)
        try:
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
                for number in self._partitions(consumer, topic)
            }
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topic: str) -> list[int]:
        return sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)


def _retried(call: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except (KafkaException, TimeoutError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)
