"""How long the topic keeps payments, and since when the ones that wait have waited: what alarms are told from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Reason
from confluent_kafka.admin._config import ConfigEntry, ConfigResource

from include.errors import KafkaAccessError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explanation

log = logging.getLogger(__name__)

# Nobody waits long for what only an alarm needs.
_SECONDS = 5.0


@dataclass(frozen=True)
class Retention:
    """`retention.ms` and `retention.bytes`; None where the topic knows no such bound."""

    age: timedelta | None = None
    bytes: int | None = None


def read_retention(admin: Admin, client: ClientConfig, topic: str) -> Retention | None:
    """None where it cannot be known: the right DescribeConfigs is optional, and without it a run goes on."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        entries: dict[str, ConfigEntry] = admin.answer(
            admin.describe_configs([resource], request_timeout=_SECONDS)[resource]
        )
    except KafkaException as error:
        reason: Reason = error.args[0]
        if reason.code() == Reason.TOPIC_AUTHORIZATION_FAILED:
            log.info(
                "%s: no right DescribeConfigs, so nobody can be told in time that payments are about to expire", topic
            )
        else:
            log.warning("%s: its retention cannot be read: %s", topic, explanation(reason, client))
        return None
    except KafkaAccessError as error:
        log.warning("%s: its retention cannot be read: %s", topic, error)
        return None
    if "delete" not in (entries["cleanup.policy"].value or ""):
        return Retention()
    milliseconds, size = _bound(entries["retention.ms"]), _bound(entries["retention.bytes"])
    # As good as for ever, and more than a timedelta can hold.
    unlimited = milliseconds is None or milliseconds >= timedelta.max // timedelta(milliseconds=1)
    return Retention(None if unlimited else timedelta(milliseconds=milliseconds or 0), size)


def oldest_times(consumer: Consumer, topic: str, starts: Mapping[int, int]) -> dict[int, datetime]:
    """When the first message at or after `starts` was written, by partition; for whoever does not read them all.

    Reads one message of each, and leaves out a partition that gives none, or none in time. The consumer keeps nothing
    assigned.
    """
    found: dict[int, datetime] = {}
    waiting = set(starts)
    consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
    deadline = time.monotonic() + _SECONDS
    try:
        while waiting and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            partition = message.partition() if message is not None else None
            if message is None or partition not in waiting:
                continue
            waiting.discard(partition)
            consumer.incremental_unassign([TopicPartition(topic, partition)])
            at = written_at(message.timestamp()) if message.error() is None else None
            if at is not None:
                found[partition] = at
    except KafkaException as error:
        log.warning("%s: the age of what waits cannot be read: %s", topic, error.args[0].str())
    finally:
        consumer.unassign()
    return found


def written_at(timestamp: tuple[int, int]) -> datetime | None:
    """Return a message's `timestamp()` as a time: the latest possible one where it is no date, such as one in
    microseconds; None where the message has no timestamp."""
    kind, milliseconds = timestamp
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _bound(entry: ConfigEntry) -> int | None:
    """-1 is Kafka's word for no bound."""
    value = int(entry.value or -1)
    return value if value >= 0 else None
