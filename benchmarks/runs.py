"""Seconds of a run with so many payments, beside an empty DAG of the same shape on the same scheduler."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import bench_topics, payments
from benchmarks.airflow_runs import DAG, EMPTY, RunTimes, measured_run, pipeline, runs_between, settle
from benchmarks.bench import INPUT, Bench, BenchmarkError

# Far enough from the next scheduled run, which would take payments that wait for this one: seconds by payments.
_ROOM = ((1_000, 15), (50_000, 25), (10**9, 45))


def measure(bench: Bench, *, counts: tuple[int, ...], sittings: int, shards: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with pipeline(bench, shards) as api:
        # A paused DAG starts no runs at all, so its schedule goes on, and measured runs stand between scheduled ones.
        for dag in (DAG, EMPTY):
            api.pause(dag, False)
        bench.say("warming up: a run of each")
        settle(api, 30)
        payments.produce(bench.kafka, INPUT, 1_000, bench_topics.PARTITIONS)
        measured_run(api, DAG)
        measured_run(api, EMPTY)
        for count in counts:
            pairs = [_pair(bench, api, count) for _ in range(sittings)]
            rows[str(count)] = _sum_up(pairs)
            row = rows[str(count)]
            bench.say(f"{count:,} payments: {row['seconds']:.1f} s, empty {row['empty_seconds']:.1f} s")
    return {"shards": shards, "sittings": sittings, "by_payments": rows}


def _pair(bench: Bench, api: Any, count: int) -> tuple[RunTimes, RunTimes]:
    """A run and, right after it, an empty one that passes by the same tasks."""
    for _ in range(5):
        settle(api, next(room for most, room in _ROOM if count <= most))
        began = time.time()
        if count:
            payments.produce(bench.kafka, INPUT, count, bench_topics.PARTITIONS)
        real = measured_run(api, DAG)
        if not runs_between(api, began, real.began):
            settle(api, 15)
            return real, measured_run(api, EMPTY, {"skipped": real.skipped})
        bench.say("a scheduled run was in between: once more")
    raise BenchmarkError(f"five times a scheduled run took payments that a measured run of {count:,} was to take")


def _sum_up(pairs: list[tuple[RunTimes, RunTimes]]) -> dict[str, Any]:
    real, empty = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return {
        "seconds": median(run.seconds for run in real),
        "empty_seconds": median(run.seconds for run in empty),
        "more_seconds": median(one.seconds - other.seconds for one, other in pairs),
        "tasks": {name: median(run.tasks.get(name, 0.0) for run in real) for name in real[0].tasks},
        "empty_tasks": {name: median(run.tasks.get(name, 0.0) for run in empty) for name in empty[0].tasks},
        "runs": [{"real": asdict(one), "empty": asdict(other)} for one, other in pairs],
    }
