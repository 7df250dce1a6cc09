"""Do the product's work as an engineer would write it for one machine and one day: plain loops without staging.

These loops survive no crash, know no dead letters, and bound memory only by the chunk. The product's steps are compared
with them.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import joblib
import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.contender_task import Task, Work
from include.payments.columns import COLUMNS

_CHUNK = 50_000
_FIELDS = ("amt", "lat", "long", "city_pop", "merch_lat", "merch_long")


class _Value(msgspec.Struct, gc=False):
    # The types are checked while the row is read. The order of the columns is assumed.
    data: list[
        tuple[
            str, int, str, str, float, str, str, str, str, str, str, int, float, float, int, str, str, str, int, float,
            float, int,
        ]
    ]  # fmt: skip


def drain(task: Task) -> Work:
    """Prepare a loop that consumes, and decodes to typed tuples."""

    def work() -> dict[str, Any]:
        decode = msgspec.json.Decoder(_Value).decode
        count = 0
        for messages in _read(task):
            rows = [decode(message.value() or b"").data[0] for message in messages]
            count += len(rows)
        return {"payments": count}

    return work


def predict(task: Task) -> Work:
    """Prepare a loop that scores a matrix which exists already."""
    forest = _forest(task)
    decode = msgspec.json.Decoder(_Value).decode
    rows = [decode(message.value() or b"").data[0] for messages in _read(task) for message in messages]
    matrix = _matrix(rows)
    del rows

    def work() -> dict[str, Any]:
        for start in range(0, len(matrix), _CHUNK):
            forest.predict_proba(matrix[start : start + _CHUNK])
        return {"payments": len(matrix)}

    return work


def publish(task: Task) -> Work:
    """Prepare a loop that encodes and produces with six headers, in one Kafka transaction."""
    decode = msgspec.json.Decoder(_Value).decode
    rows = [(message, decode(message.value() or b"").data[0]) for messages in _read(task) for message in messages]
    chances = np.random.default_rng(1).random(len(rows)) / 2

    def work() -> dict[str, Any]:
        producer = _producer(task)
        producer.begin_transaction()
        _send(producer, task, [row[0] for row in rows], [row[1] for row in rows], chances)
        producer.commit_transaction(120)
        return {"payments": len(rows)}

    return work


def chain(task: Task) -> Work:
    """Prepare one loop that does everything in one Kafka transaction with the group's offsets: exactly once, too."""
    forest = _forest(task)

    def work() -> dict[str, Any]:
        decode = msgspec.json.Decoder(_Value).decode
        producer = _producer(task)
        producer.begin_transaction()
        count = 0
        ends: dict[int | None, int] = {}
        consumer = _consumer(task)
        held: list[Message] = []
        for messages in itertools.chain(_read(task, consumer), [[]]):
            held += messages
            if len(held) >= _CHUNK or (not messages and held):
                rows = [decode(message.value() or b"").data[0] for message in held]
                _send(producer, task, held, rows, forest.predict_proba(_matrix(rows))[:, 1])
                ends |= {message.partition(): (message.offset() or 0) + 1 for message in held}
                count += len(held)
                held = []
        offsets = [TopicPartition(task.topic, partition or 0, end) for partition, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 60)
        producer.commit_transaction(120)
        consumer.close()
        return {"payments": count}

    return work


def _forest(task: Task) -> Any:
    pipeline = joblib.load(task.forest)
    pipeline.steps[-1][1].n_jobs = 1 if task.shards > 1 else -1
    # Scores a matrix without column names, so the pipeline must not expect any.
    for _, step in pipeline.steps:
        vars(step).pop("feature_names_in_", None)
    pipeline.predict_proba(np.zeros((2_000, len(_FIELDS))))
    return pipeline


def _matrix(rows: list[Any]) -> np.ndarray:
    places = [COLUMNS.index(name) for name in _FIELDS]
    columns = list(zip(*rows, strict=True))
    return np.column_stack([np.array(columns[place], dtype=np.float64) for place in places])


def _consumer(task: Task) -> Consumer:
    settings = {"group.id": task.group, "enable.auto.commit": False, "isolation.level": "read_committed"}
    return Consumer({**task.kafka, **settings, "fetch.wait.max.ms": 50, "queued.max.messages.kbytes": 65_536})


def _read(task: Task, consumer: Consumer | None = None) -> Iterator[list[Message]]:
    own = consumer is None
    consumer = consumer or _consumer(task)
    places = [TopicPartition(task.topic, number, 0) for number in task.partitions]
    left = sum(consumer.get_watermark_offsets(place, timeout=15)[1] for place in places)
    consumer.assign(places)
    gc.disable()
    heard = time.monotonic()
    while left:
        messages = consumer.consume(min(left, 10_000), timeout=0.2)
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > 60:
            raise RuntimeError(f"{left} messages of {task.topic} do not come")
        for message in messages:
            if (error := message.error()) is not None:
                raise RuntimeError(error.str())
        left -= len(messages)
        yield messages
    if own:
        consumer.close()


def _producer(task: Task) -> Producer:
    settings = {"transactional.id": f"bare/{task.group}/{task.shard}", "transaction.timeout.ms": 300_000}
    producer = Producer({**task.kafka, **settings, "compression.type": "lz4", "linger.ms": 20})
    producer.init_transactions(60)
    return producer


def _send(producer: Producer, task: Task, messages: list[Message], rows: list[Any], chances: np.ndarray) -> None:
    encode = msgspec.json.encode
    names = (*COLUMNS[:-1], "is_fraud", "fraud_confirmed")
    common = [
        ("model_run_id", task.run["run_id"].encode()),
        ("batch_id", b"bare"),
        ("scored_at", datetime.now(UTC).isoformat(timespec="milliseconds").encode()),
    ]
    topic = task.topic.encode()
    for message, row, chance in zip(messages, rows, chances.tolist(), strict=True):
        value = encode([dict(zip(names, (*row[:-1], int(chance >= 0.5), None), strict=True))])
        headers = [
            *common,
            ("source", b"%b/%d/%d" % (topic, message.partition() or 0, message.offset() or 0)),
            ("row", b"0"),
            ("fraud_probability", repr(chance).encode()),
        ]
        while True:
            try:
                producer.produce(task.output, value, message.key(), headers=headers)
                break
            except BufferError:
                producer.poll(0.5)
