"""A topic's retention and the age of its oldest unread messages, for alarms before payments expire."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._config import ConfigEntry, ConfigResource

from include.errors import ClusterAccessError
from include.kafka.cluster import Cluster

log = logging.getLogger(__name__)

# Short, because only alarms depend on these requests.
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True)
class Retention:
    """`retention.ms` and `retention.bytes` of a topic, None for no limit. `bytes` applies to each partition."""

    age: timedelta | None = None
    bytes: int | None = None


def read_retention(cluster: Cluster, topic: str) -> Retention | None:
    """Return the topic's retention. If it cannot be read, log why and return None.

    Reading it needs the right DescribeConfigs, which is optional: without it a run raises no alarm before payments
    expire.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        futures = cluster.admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)
        entries: dict[str, ConfigEntry] = cluster.admin.wait_for(futures[resource])
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            log.info(
                "%s: the user lacks the right DescribeConfigs, so no alarm is raised before payments expire", topic
            )
        else:
            log.warning("%s: the retention cannot be read: %s", topic, cluster.describe_error(reason))
        return None
    except ClusterAccessError as error:
        log.warning("%s: the retention cannot be read: %s", topic, error)
        return None
    if "delete" not in (entries["cleanup.policy"].value or ""):
        return Retention()
    milliseconds, size = _limit(entries["retention.ms"]), _limit(entries["retention.bytes"])
    # A limit of 290 million years does not fit into a timedelta, and means unlimited.
    is_unlimited = milliseconds is None or milliseconds >= timedelta.max // timedelta(milliseconds=1)
    return Retention(None if is_unlimited else timedelta(milliseconds=milliseconds or 0), size)


def read_oldest_times(
    cluster: Cluster, group: str, topic: str, starts: Mapping[int, int], isolation_level: str = "read_committed"
) -> dict[int, datetime]:
    """Return by partition when the first message at or after its start offset was written.

    It reads one message of each partition, for five seconds in total. The result lacks partitions without a message and
    those that did not answer in time.
    """
    if not starts:
        return {}
    times: dict[int, datetime] = {}
    unread = set(starts)
    with cluster.consumer(group, isolation_level) as consumer:
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        deadline = time.monotonic() + _REQUEST_SECONDS
        try:
            while unread and time.monotonic() < deadline:
                message = consumer.poll(0.2)
                partition = message.partition() if message is not None else None
                if message is None or partition not in unread:
                    continue
                unread.discard(partition)
                consumer.incremental_unassign([TopicPartition(topic, partition)])
                at = to_datetime(message.timestamp()) if message.error() is None else None
                if at is not None:
                    times[partition] = at
        except KafkaException as error:
            log.warning("%s: the age of unread payments cannot be read: %s", topic, error.args[0].str())
    return times


def to_datetime(timestamp: tuple[int, int]) -> datetime | None:
    """Return a message's `timestamp()` as a time, None if the message has no timestamp.

    A number that is not a date, such as one in microseconds, becomes the latest possible time.
    """
    kind, milliseconds = timestamp
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _limit(entry: ConfigEntry) -> int | None:
    """Return the value of a retention setting, None for -1, which means no limit."""
    value = int(entry.value or -1)
    return value if value >= 0 else None
