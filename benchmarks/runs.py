"""Measure the seconds of a run by its number of payments, beside an empty DAG of the same shape."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import bench_topics, payments
from benchmarks.airflow_runs import DAG, EMPTY, RunTimes, measured_run, pipeline, runs_between, wait_until_idle
from benchmarks.bench import INPUT, Bench, BenchmarkError

# Least seconds until the next scheduled run, by payments: that run would take payments of the measured one.
_ROOM = ((1_000, 15), (50_000, 25), (10**9, 45))


def measure(bench: Bench, *, counts: tuple[int, ...], sittings: int, shards: int) -> dict[str, Any]:
    """Return the times by number of payments."""
    rows: dict[str, Any] = {}
    with pipeline(bench, shards) as api:
        # A paused DAG starts no runs, so the schedule stays on and runs are measured between scheduled ones.
        for dag in (DAG, EMPTY):
            api.pause(dag, False)
        bench.say("warming up: a run of each")
        wait_until_idle(api, 30)
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
    """Run the DAG and, right after it, the empty DAG with the same path through its tasks."""
    for _ in range(5):
        wait_until_idle(api, next(room for most, room in _ROOM if count <= most))
        began = time.time()
        if count:
            payments.produce(bench.kafka, INPUT, count, bench_topics.PARTITIONS)
        real = measured_run(api, DAG)
        if not runs_between(api, began, real.began):
            wait_until_idle(api, 15)
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
