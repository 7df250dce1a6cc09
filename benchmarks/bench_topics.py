"""Create and remove the topics of a measurement."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from include.kafka.client_config import ClientConfig, shared_config

PARTITIONS = 6


def create(kafka: ClientConfig, names: Iterable[str], partitions: int = PARTITIONS) -> None:
    """Create empty topics. Topics of these names are removed first."""
    admin = AdminClient(shared_config(kafka))
    names = list(names)
    remove(kafka, names)
    wanted = [NewTopic(name, partitions, 1, config={"max.message.bytes": "2097152"}) for name in names]
    until = time.monotonic() + 60
    for name, future in admin.create_topics(wanted, operation_timeout=30).items():
        while True:
            try:
                future.result(timeout=30)
                break
            except KafkaException:
                # Kafka refuses a topic while an old one of that name is being deleted.
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
                again = next(topic for topic in wanted if topic.topic == name)
                future = admin.create_topics([again], operation_timeout=30)[name]


def remove(kafka: ClientConfig, names: Iterable[str]) -> None:
    """Remove topics, if they exist."""
    admin = AdminClient(shared_config(kafka))
    there = set(admin.list_topics(timeout=15).topics)
    gone = [name for name in names if name in there]
    if gone:
        for future in admin.delete_topics(gone, operation_timeout=30).values():
            future.result(timeout=60)


def ends(kafka: ClientConfig, topic: str) -> dict[int, int]:
    """Return the last stable offset of each partition."""
    consumer = Consumer(
        shared_config(kafka) | {"group.id": "benchmarks", "isolation.level": "read_committed", "log_level": 0}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=15).topics[topic].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=15)[1]
            for number in partitions
        }
    finally:
        consumer.close()


def grow(kafka: ClientConfig, names: Iterable[str], partitions: int = PARTITIONS) -> None:
    """Add partitions to topics that have fewer."""
    admin = AdminClient(shared_config(kafka))
    there = admin.list_topics(timeout=15).topics
    wanted = [NewPartitions(name, partitions) for name in names if len(there[name].partitions) < partitions]
    if wanted:
        for future in admin.create_partitions(wanted).values():
            future.result(timeout=60)
