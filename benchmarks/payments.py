"""Simulate any number of payments as messages: distinct people and places, repeated with other amounts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from include.kafka.client_config import ClientConfig, producer_config
from include.payments.columns import COLUMNS
from include.producer.message import CARD, PAYMENT_COLUMNS, split_value
from include.producer.simulator import Row, Simulator

SEED = 11
FRAUD_SHARE = 0.005
_DISTINCT = 20_000
_AT_ONCE = 5_000
_AMOUNT = COLUMNS.index("amt")
_CARD_PLACE = COLUMNS.index(CARD)


@cache
def _rows() -> list[Row]:
    return Simulator(SEED, FRAUD_SHARE).payments(_DISTINCT)


def messages(count: int) -> Iterator[dict[str, Any]]:
    """Yield keys and values, the same at each call."""
    encode = msgspec.json.encode
    for number in range(count):
        row = _rows()[number % _DISTINCT]
        amount = round(row[_AMOUNT] * (1 + (number // _DISTINCT % 100) / 1_000), 2)
        changed = (*row[:_AMOUNT], amount, *row[_AMOUNT + 1 :])
        yield {"key": b"%d" % row[_CARD_PLACE], "value": split_value(PAYMENT_COLUMNS, b"%d" % number, encode(changed))}


def mean_bytes(count: int = 1_000) -> float:
    """Return the mean size of a message's value."""
    return sum(len(message["value"]) for message in messages(count)) / count


def produce(kafka: ClientConfig, topic: str, count: int, partitions: int) -> float:
    """Send payments evenly over the partitions, and return the seconds. Raises RuntimeError if a delivery fails."""
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)

    settings = producer_config(kafka) | {"queue.buffering.max.messages": 200_000, "linger.ms": 50}
    producer = Producer(settings)
    began = time.monotonic()
    stream, partition = messages(count), 0
    while batch := list(islice(stream, _AT_ONCE)):
        while len(producer) > 100_000:
            producer.poll(0.05)
        producer.produce_batch(topic, batch, partition=partition, on_delivery=delivered)
        partition = (partition + 1) % partitions
        producer.poll(0)
    producer.flush(120)
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} payments did not reach {topic}: {failed[0].str()}")
    return time.monotonic() - began
