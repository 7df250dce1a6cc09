"""Measure the product beside its peers: the same topic, forest and machine, taking turns."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks import bench_topics, chain, payments
from benchmarks.bench import Bench
from benchmarks.forest import forest
from benchmarks.peers.airflow_kafka import airflow_kafka_peer
from benchmarks.peers.environment import python_of
from benchmarks.peers.spark import spark_peer

_INPUT, _OUTPUT = "benchmark_peers", "benchmark_peers_out"
_MICRO_BATCHES = 6
# By the documentation's own form a message takes milliseconds.
_PLAIN_PAYMENTS = 500


def measure(bench: Bench, *, count: int, sittings: int, shards: tuple[int, ...]) -> dict[str, Any]:
    """Return the rates. `count` is the size of a run, and of each of Spark's six micro-batches."""
    bench.need_disk(6 + count * 12e-6)
    for peer in ("spark", "airflow_kafka"):
        python_of(bench, peer)
    with bench.running():
        used = forest(bench)
        bench_topics.create(bench.kafka, [_INPUT])
        took = payments.produce(bench.kafka, _INPUT, _MICRO_BATCHES * count, bench_topics.PARTITIONS)
        bench.say(f"{_MICRO_BATCHES * count:,} payments wait, {_MICRO_BATCHES * count / took:,.0f} /s produced")
        product: dict[int, list[float]] = {number: [] for number in shards}
        sparks: list[dict[str, Any]] = []
        for sitting in range(1, sittings + 1):
            bench_topics.create(bench.kafka, [_OUTPUT])
            for number in shards:
                rate = chain.product_rate(bench, used, _INPUT, _OUTPUT, count=count, shards=number)
                bench.say(f"sitting {sitting}, product, shards {number}: {rate:,.0f} /s")
                product[number].append(rate)
            bench_topics.create(bench.kafka, [_OUTPUT])
            sparks.append(spark_peer.measure(bench, used, _INPUT, _OUTPUT, at_once=count))
            bench.say(f"sitting {sitting}, Spark, warm: {sparks[-1]['per_second']:,.0f} /s")
        operators = {
            form: airflow_kafka_peer.measure(bench, used, _INPUT, _OUTPUT, form=form, count=many)
            for form, many in (("plain", _PLAIN_PAYMENTS), ("batch", count))
        }
        for form, row in operators.items():
            bench.say(f"Airflow's Kafka operators, {form}: {row['per_second']:,.0f} /s")
        bench_topics.remove(bench.kafka, [_INPUT, _OUTPUT])
    best = max((median(rates) for rates in product.values()), default=0.0)
    warm = median(one["per_second"] for one in sparks)
    return {
        "payments": count,
        "product": {str(number): rates for number, rates in product.items()},
        "spark": {**sparks[0], "per_second": warm, "sittings": [one["per_second"] for one in sparks]},
        "operators": operators,
        "product_to_spark": best / warm,
        "void": warm < 0.8 * spark_peer.VOID_BELOW,
    }
