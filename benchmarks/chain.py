"""Measure payments a second of drain, predict, publish and all three, beside bare loops that do the same work."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks import bench_topics, payments
from benchmarks.bench import Bench
from benchmarks.contender import ContenderTimes, Rates, run_step
from benchmarks.contender_task import Task
from benchmarks.forest import Forest, forest

STEPS = ("drain", "predict", "publish")
_INPUT, _OUTPUT = "benchmark_chain", "benchmark_chain_out"


def measure(bench: Bench, *, count: int, sittings: int, shards: tuple[int, ...]) -> dict[str, Any]:
    """Return the rates of all contenders. They take turns, so that a slow phase of the machine affects each of them."""
    bench.need_disk(3 + count * (2 * len(shards) + 2) * sittings * 1e-6)
    with bench.running():
        used = forest(bench)
        bench_topics.create(bench.kafka, [_INPUT])
        seconds = payments.produce(bench.kafka, _INPUT, count, bench_topics.PARTITIONS)
        bench.say(f"{count:,} payments of {payments.mean_bytes():.0f} bytes wait ({count / seconds:,.0f} /s produced)")
        found: dict[str, list[dict[str, Any]]] = {}
        # The first sitting warms disks and page caches; it does not count.
        for sitting in range(sittings + 1):
            bench_topics.create(bench.kafka, [_OUTPUT])
            for number, who in itertools.product(shards, ("product", "bare")):
                task = _task(bench, used, _INPUT, _OUTPUT, count, number)
                steps = dict(_product(bench, task) if who == "product" else _bare(bench, task))
                said = ", ".join(f"{name} {count / step.seconds:,.0f}" for name, step in steps.items())
                bench.say(f"{'warm-up' if not sitting else f'sitting {sitting}'}, {who}, shards {number}: {said} /s")
                if any(step.payments != count for step in steps.values() if step.payments):
                    raise RuntimeError(f"not all of {count} payments: {steps}")
                if sitting:
                    found.setdefault(f"{who} {number}", []).append(_chain_result(steps))
        bench_topics.remove(bench.kafka, [_INPUT, _OUTPUT])
    return {
        "payments": count,
        "message_bytes": payments.mean_bytes(),
        "forest": {"depth": used.depth, "nodes": used.nodes},
        "contenders": {name: _sum_up(count, sittings) for name, sittings in found.items()},
    }


def product_rate(bench: Bench, used: Forest, topic: str, output: str, *, count: int, shards: int) -> float:
    """Return the rate of the whole chain, run once on the first `count` payments of a topic."""
    steps = dict(_product(bench, _task(bench, used, topic, output, count // bench_topics.PARTITIONS, shards)))
    return steps["publish"].payments / sum(step.seconds for step in steps.values())


def _task(bench: Bench, used: Forest, topic: str, output: str, most: int, shards: int) -> Task:
    """Return a task with its own group, which starts at the beginning of the topic."""
    return Task(
        kafka=bench.kafka,
        topic=topic,
        output=output,
        group=f"chain-{uuid.uuid4().hex[:8]}",
        staging=str(bench.home / "staging"),
        cache=str(bench.home / "models"),
        run=used.run,
        forest=used.file,
        partitions=tuple(range(bench_topics.PARTITIONS)),
        most=most,
        shards=shards,
    )


def _product(bench: Bench, task: Task) -> Iterator[tuple[str, ContenderTimes]]:
    shutil.rmtree(task.staging, ignore_errors=True)
    try:
        planned = run_step(bench, "plan", [task])
        tasks = [replace(task, batch=planned.reports[0]["batch"], shard=shard) for shard in range(task.shards)]
        yield "plan", planned
        for name in STEPS:
            yield name, run_step(bench, name, tasks)
    finally:
        shutil.rmtree(task.staging, ignore_errors=True)


def _bare(bench: Bench, task: Task) -> Iterator[tuple[str, ContenderTimes]]:
    halves = [task.partitions[shard :: task.shards] for shard in range(task.shards)]
    tasks = [replace(task, partitions=half, shard=shard) for shard, half in enumerate(halves)]
    for name in (*STEPS, "chain"):
        yield name, run_step(bench, f"bare_{name}", tasks)


def _chain_result(steps: dict[str, ContenderTimes]) -> dict[str, Any]:
    """Return the results of the product's chain: its steps one after the other, as the tasks of a run are."""
    seconds = {name: step.seconds for name, step in steps.items()}
    seconds.setdefault("chain", sum(seconds.values()))
    seconds["drain"] += seconds.pop("plan", 0.0)
    model = [report["model_seconds"] for step in steps.values() for report in step.reports if "model_seconds" in report]
    return {
        "seconds": seconds,
        "cpu_seconds": {name: sum(report["cpu"] for report in step.reports) for name, step in steps.items()},
        "peak_mb": {name: step.peak_mb for name, step in steps.items()},
        "model_seconds": max(model, default=None),
    }


def _sum_up(count: int, sittings: list[dict[str, Any]]) -> dict[str, Any]:
    names = sittings[0]["seconds"]
    return {
        "per_second": {name: Rates.of([count / one["seconds"][name] for one in sittings])._asdict() for name in names},
        "peak_mb": {name: max(one["peak_mb"][name] for one in sittings) for name in sittings[0]["peak_mb"]},
        "model_seconds": sittings[-1]["model_seconds"],
        "sittings": sittings,
    }
