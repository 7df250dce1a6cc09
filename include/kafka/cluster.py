"""A Kafka cluster: its admin client and consumers, and requests about topics, groups and offsets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupState,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.admin._listoffsets import OffsetSpec
from tenacity import retry, retry_if_exception, wait_fixed

from include.errors import ClusterError, GroupInUseError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, consumer_config, read_client_config
from include.kafka.client_errors import describe_error

_Call = TypeVar("_Call", bound=Callable[..., Any])

REQUEST_SECONDS = 15.0
# A broker returns these for some seconds after it started or became a group's coordinator. librdkafka does not retry.
COORDINATOR_ERRORS = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)
# The first request for a group makes the brokers create __consumer_offsets; until then librdkafka gets no answer.
_NO_RESPONSE = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT)
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def retry_on(*codes: int) -> Callable[[_Call], _Call]:
    """Retry a call while it raises KafkaException with one of these error codes. No try begins after 15 seconds."""
    decorator = retry(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() in codes),
        wait=wait_fixed(0.3),
        stop=lambda state: (state.seconds_since_start or 0) >= REQUEST_SECONDS,
        reraise=True,
    )
    return cast("Callable[[_Call], _Call]", decorator)


@dataclass(frozen=True)
class Topic:
    """A topic. `topic_id` distinguishes it from a deleted topic of its name; `partitions` are numbers, ascending."""

    name: str
    topic_id: str
    partitions: tuple[int, ...]


class Cluster:
    """A cluster and the configuration of its clients. Nothing connects before the first request.

    Requests that fail raise ClusterError, which names the brokers and the cause. The first use of the admin client
    raises SettingError if librdkafka rejects the configuration.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """Return the cluster that the environment names. Raise SettingError if it names none."""
        return cls(read_client_config(environment))

    @cached_property
    def admin(self) -> Admin:
        """Return the admin client, which is created on first use."""
        return Admin(self.config)

    @contextmanager
    def consumer(self, group: str, isolation_level: str = "read_committed") -> Iterator[Consumer]:
        """Yield a consumer that neither joins the group nor commits (see `consumer_config`), and close it."""
        consumer = Consumer(consumer_config(self.config, group) | {"isolation.level": isolation_level})
        try:
            yield consumer
        finally:
            consumer.close()

    @contextmanager
    def translate_errors(self, failure: str) -> Iterator[None]:
        """Raise ClusterError in place of KafkaException; its text is `failure`, then the cause and what to do."""
        try:
            yield
        except KafkaException as error:
            raise ClusterError(f"{failure}: {self.describe_error(error.args[0])}") from error

    def describe_error(self, error: KafkaError, topic: str = "the topic") -> str:
        """Return one line about an error: see `describe_error` in client_errors."""
        return describe_error(error, self.config, topic)

    def describe_topic(self, name: str) -> Topic:
        """Return the topic's id and partitions."""
        with self.translate_errors(f"topic {name} cannot be described"):
            futures = self.admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_SECONDS)
            described = self.admin.wait_for(futures[name])
        return Topic(name, str(described.topic_id), tuple(sorted(partition.id for partition in described.partitions)))

    def describe_group(self, group: str) -> ConsumerGroupDescription | None:
        """Return the group's state and members, None if there is no such group.

        Call it before reading committed offsets. Both need the right Describe on the group, which Read includes.
        Without it, reading committed offsets only times out, as it does while a transaction is open; this raises
        ClusterError with the cause.
        """
        try:
            return self._describe_group(group)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            with self.translate_errors(f"group {group} cannot be described"):
                raise

    @retry_on(*COORDINATOR_ERRORS, *_NO_RESPONSE)
    def _describe_group(self, group: str) -> ConsumerGroupDescription:
        # `retry_on` begins no try after REQUEST_SECONDS. A try without an answer must leave time for others.
        futures = self.admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS / 3)
        described: ConsumerGroupDescription = self.admin.wait_for(futures[group])
        return described

    def require_unused_group(self, group: str, setting: str = "FRAUD_GROUP") -> None:
        """Raise GroupInUseError if the group has members.

        Kafka accepts commits of members and ours, so each would overwrite the other's. `setting` is the environment
        variable that names the group: the error asks to set it to another one.
        """
        described = self.describe_group(group)
        if described is None or described.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
            return
        members = ", ".join(f"{member.client_id} on {member.host}" for member in described.members) or "unknown"
        raise GroupInUseError(
            f"group {group} is {described.state.name}: it is in use by {members}. Stop that consumer, or set "
            f"{setting} to another group"
        )

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the first offset that each partition retains."""
        return self._list_offsets(topic, partitions, _EARLIEST)

    def last_stable_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return each partition's last stable offset: read_committed consumers read only the offsets before it."""
        return self._list_offsets(topic, partitions, _LATEST)

    def high_watermarks(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return each partition's high watermark: one past its last message, open transactions included."""
        return self._list_offsets(topic, partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def offsets_at(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int | None]:
        """Return the first offset of each partition with a timestamp of at least `time_ms`, None if there is none.

        `time_ms` counts milliseconds since 1970 in UTC. Open transactions are included.
        """
        spec: OffsetSpec = OffsetSpec.for_timestamp(max(0, time_ms))
        offsets = self._list_offsets(topic, partitions, spec, IsolationLevel.READ_UNCOMMITTED)
        return {partition: offset if offset >= 0 else None for partition, offset in offsets.items()}

    def _list_offsets(
        self,
        topic: str,
        partitions: Iterable[int],
        spec: OffsetSpec,
        level: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[int, int]:
        specs = {TopicPartition(topic, partition): spec for partition in partitions}
        with self.translate_errors(f"offsets of {topic} cannot be listed"):
            futures = self.admin.list_offsets(specs, isolation_level=level, request_timeout=REQUEST_SECONDS)
            offsets = {key.partition: self.admin.wait_for(future).offset for key, future in futures.items()}
            # If a broker that was connected does not answer, librdkafka 2.16 returns this offset instead of an error.
            if OFFSET_INVALID in offsets.values():
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return offsets
