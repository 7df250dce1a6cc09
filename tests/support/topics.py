"""Sends to topics and reads them without the product's code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.support.kafka_log import client


@dataclass(frozen=True)
class Arrived:
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @classmethod
    def of(cls, message: Message) -> Arrived:
        headers = {
            name: value.decode(errors="replace") for name, value in message.headers() or [] if isinstance(value, bytes)
        }
        return cls(message.key(), message.value(), headers)

    @property
    def place(self) -> tuple[str, str]:
        """Source and row: each may arrive once."""
        return self.headers["source"], self.headers.get("row", "")

    @property
    def payment(self) -> dict[str, Any]:
        (payment,) = json.loads(self.value or b"")
        return dict(payment)


def send(
    kafka: str | Mapping[str, Any],
    topic: str,
    messages: Iterable[tuple[bytes | None, bytes | None]],
    spread: int | None = None,
) -> list[str]:
    """Send keys and values; return their sources (`topic/partition/offset`). `spread` is the number of partitions."""
    sources: dict[int, str] = {}
    producer = Producer({**client(kafka), "acks": "all", "partitioner": "murmur2_random"})
    for number, (key, value) in enumerate(messages):

        def delivered(error: KafkaError | None, message: Message, number: int = number) -> None:
            assert error is None, error
            sources[number] = f"{topic}/{message.partition()}/{message.offset()}"

        producer.produce(topic, value, key, number % spread if spread else -1, on_delivery=delivered)
    assert producer.flush(60) == 0
    return [sources[number] for number in range(len(sources))]


class Reader:
    """Committed messages of a topic since the reader was created."""

    def __init__(self, servers: str, topic: str) -> None:
        self._topic = topic
        self._settings = {
            "bootstrap.servers": servers,
            "group.id": "system-tests",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        consumer = Consumer(self._settings)
        numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._starts = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in numbers
        }
        consumer.close()

    def arrived(self) -> list[Arrived]:
        return list(self.each())

    def each(self) -> Iterator[Arrived]:
        consumer = Consumer(self._settings)
        consumer.assign([TopicPartition(self._topic, number, start) for number, start in self._starts.items()])
        waiting = set(self._starts)
        try:
            while waiting:
                message = consumer.poll(30)
                assert message is not None, f"{self._topic} does not answer"
                if (error := message.error()) is None:
                    yield Arrived.of(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard(message.partition())
        finally:
            consumer.close()
