"""Measure how old a payment is when a consumer can read its prediction (read_committed), at a steady rate."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import bench_topics
from benchmarks.airflow_runs import DAG, pause_when_idle, pipeline
from benchmarks.bench import INPUT, OUTPUT, Bench
from benchmarks.payments import messages
from include.kafka.client_config import producer_config, shared_config
from include.payments.columns import COLUMNS

_STAMP = re.compile(rb'"unix_time": ?(\d+)')
_PLACE = COLUMNS.index("unix_time")
_TICK = 0.02
_PATIENCE = 240.0


class _RowValues(msgspec.Struct):
    data: list[list[Any]]


def measure(bench: Bench, *, rates: tuple[float, ...], minutes: float, shards: int) -> dict[str, Any]:
    """Return, for each rate in payments a second, the distribution of ages over some minutes."""
    found: dict[str, Any] = {}
    with pipeline(bench, shards) as api:
        api.pause(DAG, False)
        # The first run after a start takes a few seconds longer.
        time.sleep(75)
        for rate in rates:
            bench.say(f"{rate:g} payments a second for {minutes:g} minutes")
            row = _at(bench, rate, minutes)
            found[f"{rate:g}"] = row
            bench.say(f"{rate:g} /s: median {row['median']:.1f} s, 99th percentile {row['p99']:.1f} s")
        pause_when_idle(api)
    return {"minutes": minutes, "shards": shards, "by_rate": found}


def _at(bench: Bench, rate: float, minutes: float) -> dict[str, Any]:
    ages: list[float] = []
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(bench, bench_topics.ends(bench.kafka, OUTPUT), ages, stop))
    reader.start()
    try:
        sent = _send(bench, rate, minutes * 60)
        until = time.monotonic() + _PATIENCE
        while len(ages) < sent and time.monotonic() < until:
            time.sleep(0.5)
    finally:
        stop.set()
        reader.join()
    if len(ages) != sent:
        raise RuntimeError(f"{sent} payments sent, {len(ages)} seen {_PATIENCE:g} s after the last one")
    ages.sort()
    return {
        "payments": sent,
        "median": ages[len(ages) // 2],
        "p99": ages[min(len(ages) - 1, int(len(ages) * 0.99))],
        "most": ages[-1],
        "percentiles": [ages[min(len(ages) - 1, len(ages) * share // 100)] for share in range(101)],
    }


def _send(bench: Bench, rate: float, seconds: float) -> int:
    """Send payments for some seconds and return their number. `unix_time` is the time of sending, in milliseconds."""
    producer = Producer(producer_config(bench.kafka) | {"linger.ms": 5})
    source = messages(int(rate * seconds))
    began, sent = time.monotonic(), 0
    for message in source:
        while (early := began + sent / rate - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(min(early, _TICK) if rate < 1 / _TICK else _TICK)
        # A simulated payment has an old time. It is replaced in the text of the row.
        old = msgspec.json.decode(message["value"], type=_RowValues).data[0][_PLACE]
        value = message["value"].replace(b",%d," % old, b",%d," % (time.time_ns() // 1_000_000), 1)
        producer.produce(INPUT, value, message["key"])
        sent += 1
        if not sent % 1_000:
            producer.poll(0)
    producer.flush(60)
    return sent


def _read(bench: Bench, starts: dict[int, int], ages: list[float], stop: threading.Event) -> None:
    """Append the age of each prediction to `ages` until `stop` is set. Only committed messages are read."""
    consumer = Consumer(
        shared_config(bench.kafka)
        | {"group.id": "benchmarks", "enable.auto.commit": False, "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition(OUTPUT, number, start) for number, start in starts.items()])
    try:
        while not stop.is_set():
            messages = consumer.consume(10_000, timeout=0.1)
            now = time.time()
            stamps = [_STAMP.search(message.value() or b"") for message in messages if message.error() is None]
            ages += [now - int(stamp[1]) / 1000 for stamp in stamps if stamp]
    finally:
        consumer.close()
