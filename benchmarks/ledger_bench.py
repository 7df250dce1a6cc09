"""Measure the recording of the output topic, beside a bare COPY of the same prepared rows into PostgreSQL."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
from confluent_kafka import Producer

from benchmarks import bench_topics, payments
from benchmarks.bench import OUTPUT, Bench, BenchmarkError
from dev.stack import postgres
from dev.stack.home import StackHome
from include.batch.chunks import paused_collector
from include.kafka.client_config import ClientConfig, producer_config
from include.kafka.cluster import Cluster
from include.kafka.headers import headers_of
from include.kafka.range_reader import read_ranges
from include.ledger.connection import LedgerConnection
from include.ledger.prediction_row import PredictionReader, PredictionRow
from include.ledger.predictions import COPY
from include.ledger.recorder import record
from include.ledger.schema import migrate
from include.payments.columns import COLUMNS
from include.settings import Settings

_REFUSED = f"{OUTPUT}_dead_letters"
_GROUP = "benchmark_ledger"
_SCORING = [
    ("model_run_id", b"0123456789abcdef" * 2),
    ("model_name", b"fraud_scoring"),
    ("model_version", b"3"),
    ("batch_id", b"20260101T000000Z-abcdef"),
    ("scored_at", b"2026-01-01T00:00:00+00:00"),
]
# The same table, and one without its checks and without the two indexes for finding payments.
_TABLES = {"the same table": "INCLUDING ALL", "a table without indexes": "INCLUDING DEFAULTS"}


def measure(bench: Bench, *, count: int, sittings: int) -> dict[str, Any]:
    """Return rates. Contenders take turns, each on an empty database; only the product reads Kafka and decodes."""
    bench.need_disk(4)
    with bench.running():
        kafka = bench.kafka
        bench_topics.create(kafka, [OUTPUT, _REFUSED])
        size = _publish(kafka, count)
        rows = _rows(kafka)
        if len(rows) != count:
            raise BenchmarkError(f"{len(rows)} rows of {count} predictions")
        seconds: dict[str, list[float]] = {"product": [], **{name: [] for name in _TABLES}}
        for sitting in range(1, sittings + 1):
            seconds["product"].append(_product(bench, kafka, count))
            for name, like in _TABLES.items():
                seconds[name].append(_bare(bench, rows, like))
            rates = ", ".join(f"{name} {count / each[-1]:,.0f}" for name, each in seconds.items())
            bench.say(f"sitting {sitting}: {rates} rows a second")
        bench_topics.remove(kafka, [OUTPUT, _REFUSED])
    return {
        "rows": count,
        "message_bytes": size,
        "row_bytes": sum(map(len, rows)) / count,
        "sittings": sittings,
        "seconds": seconds,
    }


def _publish(kafka: ClientConfig, count: int) -> float:
    """Send predictions as the product does, and return their mean size in bytes."""
    producer = Producer(producer_config(kafka) | {"queue.buffering.max.messages": 200_000})
    encode, size = msgspec.json.encode, 0
    for number, message in enumerate(payments.messages(count)):
        (values,) = msgspec.json.decode(message["value"])["data"]
        fraud = number % 200 == 0
        scored = dict(zip(COLUMNS, values, strict=True)) | {"is_fraud": int(fraud), "fraud_confirmed": None}
        value = encode([scored])
        size += len(value)
        partition, offset = number % bench_topics.PARTITIONS, number // bench_topics.PARTITIONS
        headers: list[tuple[str, str | bytes | None]] = [
            *_SCORING,
            ("source", b"benchmark_payments/%d/%d" % (partition, offset)),
            ("row", b"0"),
            ("fraud_probability", repr((number % 150) / 150).encode()),
        ]
        while True:
            try:
                producer.produce(OUTPUT, value, message["key"], partition, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise BenchmarkError("the predictions could not be produced")
    return size / count


def _rows(kafka: ClientConfig) -> list[bytes]:
    """Return the rows that the product would write, in its order."""
    cluster, reader, lines = Cluster(kafka), PredictionReader(), []
    ranges = {number: (0, end) for number, end in bench_topics.ends(kafka, OUTPUT).items()}
    with cluster.consumer(_GROUP) as consumer, paused_collector():
        for _, messages in read_ranges(cluster, consumer, OUTPUT, ranges):
            rows = [reader.read(message, headers_of(message)) for message in messages]
            lines += [row.line for row in rows if isinstance(row, PredictionRow)]
    return lines


def _product(bench: Bench, kafka: ClientConfig, count: int) -> float:
    settings = Settings(output_topic=OUTPUT, output_dead_letter_topic=_REFUSED, ledger_group=_GROUP)
    with _empty_ledger(bench) as address:
        gc.collect()
        began = time.perf_counter()
        recorded = record(Cluster(kafka), settings, address)
        seconds = time.perf_counter() - began
        if recorded.rows != count:
            raise BenchmarkError(f"{recorded.rows} rows were recorded of {count} predictions")
    return seconds


def _bare(bench: Bench, rows: list[bytes], like: str) -> float:
    content = io.BytesIO(b"".join(rows))
    with _empty_ledger(bench) as address, address.open("benchmark") as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE ledger.bare (LIKE ledger.predictions {like})")
        began = time.perf_counter()
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(COPY.replace("incoming", "ledger.bare"), content, size=1024 * 1024)
        return time.perf_counter() - began


@contextmanager
def _empty_ledger(bench: Bench) -> Iterator[LedgerConnection]:
    home = StackHome(bench.stack.home.path)
    home.create([])
    name = "benchmark"
    server = postgres.connect(home, "postgres", postgres.LEDGER)
    try:
        server.autocommit = True
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} OWNER {postgres.LEDGER}")
            address = replace(LedgerConnection.from_environment(bench.stack.env), database=name)
            migrate(address)
            # Pages of the contender before are written back first.
            cursor.execute("CHECKPOINT")
            yield address
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        server.close()
