"""Creates, fills and reads topics without the product's code."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from dev.stack.kafka import admin
from tests.support.waiting import wait_until


def make_topic(
    servers: str, partitions: int = 1, prefix: str = "test", name: str = "", configuration: dict[str, str] | None = None
) -> str:
    """Create a topic, and wait until the broker knows it as well as the controller."""
    name = name or f"{prefix}_{uuid.uuid4().hex[:10]}"
    new = NewTopic(name, partitions, 1, config=configuration or {})
    client = admin({"bootstrap.servers": servers})
    client.create_topics([new])[name].result(timeout=30)
    wait_until(lambda: client.list_topics(name, timeout=10).topics[name].error is None, f"no broker knows {name}", 30)
    return name


def set_topic(servers: str, topic: str, setting: str, value: str) -> None:
    client = admin({"bootstrap.servers": servers})
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(30)


def delete_topics(servers: str, names: list[str]) -> None:
    if names:
        client = admin({"bootstrap.servers": servers})
        for future in client.delete_topics(names).values():
            # Long enough for a broker that a test has frozen, which must register again.
            future.result(timeout=90)


def producer(servers: str, transactional_id: str | None = None) -> Producer:
    settings = {
        "bootstrap.servers": servers,
        "linger.ms": 5,
        # In order. An idempotent producer waits half a second before its first message (librdkafka 2.16).
        "max.in.flight.requests.per.connection": 1,
        "message.max.bytes": 2_000_000,
        "log_level": 0,
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


def client(kafka: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a client configuration for the address of a plain broker, or for settings."""
    return {"bootstrap.servers": kafka} if isinstance(kafka, str) else dict(kafka)


def read_all(kafka: str | Mapping[str, Any], topic: str) -> list[Message]:
    """Return all committed messages of a topic, by partition and offset."""
    consumer = Consumer(
        {
            "group.id": f"reader-{uuid.uuid4().hex}",
            **client(kafka),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: list[Message] = []
        ended: set[int] = set()
        while len(ended) < len(partitions):
            polled = consumer.consume(10_000, timeout=0.05)
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


def send_with_header(servers: str, topic: str, value: bytes, header: bytes) -> None:
    """With a header whose name may be any bytes: the Python client sends text only, librdkafka itself what it is given.

    Linux only, where the library lies beside the Python client under this name.
    """
    folder = Path(str(confluent_kafka.__file__)).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, function).restype = ctypes.c_void_p
    settings, error = ctypes.c_void_p(library.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
    library.rd_kafka_conf_set(settings, b"bootstrap.servers", servers.encode(), error, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(0, settings, error, 512))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(1))
    one = ctypes.c_ssize_t(len(header)), b"x", ctypes.c_ssize_t(1)
    assert library.rd_kafka_header_add(headers, header, *one) == 0
    # Pairs of a kind and its value: topic, value, flags (2: copy the value), headers, end.
    content = 4, value, ctypes.c_size_t(len(value))
    assert library.rd_kafka_producev(client, 1, topic.encode(), *content, 7, 2, 10, headers, 0) == 0
    assert library.rd_kafka_flush(client, 30_000) == 0
    library.rd_kafka_destroy(client)
