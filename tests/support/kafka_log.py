"""Topics as a test makes, fills and reads them, with nothing of the product."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from dev.stack.kafka import admin


def make_topic(servers: str, partitions: int = 1, prefix: str = "test", name: str = "") -> str:
    name = name or f"{prefix}_{uuid.uuid4().hex[:10]}"
    new = NewTopic(name, partitions, 1)
    client = admin({"bootstrap.servers": servers})
    client.create_topics([new])[name].result(timeout=30)
    return name


def delete_topics(servers: str, names: list[str]) -> None:
    if names:
        client = admin({"bootstrap.servers": servers})
        for future in client.delete_topics(names).values():
            future.result(timeout=30)


def producer(servers: str, transactional_id: str | None = None) -> Producer:
    settings = {
        "bootstrap.servers": servers,
        "linger.ms": 5,
        "enable.idempotence": True,
        "message.max.bytes": 2_000_000,
    }
    if transactional_id is None:
        return Producer(settings)
    made = Producer(settings | {"transactional.id": transactional_id, "transaction.timeout.ms": 600_000})
    made.init_transactions(30)
    return made


def send(servers: str, topic: str, values: Iterable[bytes | None], partition: int = 0) -> None:
    client = producer(servers)
    for value in values:
        client.produce(topic, value, b"key", partition)
    assert client.flush(30) == 0


def read_all(servers: str, topic: str) -> list[Message]:
    """What a reader of committed messages sees, from the first to the last, partition by partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: list[Message] = []
        ended: set[int] = set()
        while len(ended) < len(partitions):
            polled = consumer.consume(10_000, timeout=0.2)
            for message in polled:
                error = message.error()
                if error is None:
                    found.append(message)
                    continue
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()
