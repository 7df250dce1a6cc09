"""Measure the seconds of a run by its number of shards, on two Celery workers, and what preloading brings there."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from benchmarks import bench_topics, payments
from benchmarks.airflow_runs import DAG, measured_run, pipeline
from benchmarks.bench import INPUT, Bench
from dev.airflow_api import AirflowApi
from dev.stack import processes
from dev.stack.airflow import PRELOAD
from dev.stack.worker import WORKERS

_STEPS = ("plan", "drain", "resolve_model", "predict", "publish")
_FEW = 30_000
# The DAG off the schedule, so that only the benchmark triggers runs.
_BY_HAND = """\
def dag_policy(dag):
    from airflow.sdk.definitions.timetables.simple import NullTimetable

    dag.timetable = NullTimetable()
"""


@dataclass(frozen=True)
class _Seen:
    seconds: float
    cpu: float
    tasks: dict[str, float]


def measure(bench: Bench, *, count: int, sittings: int, numbers: tuple[int, ...]) -> dict[str, Any]:
    """Return the times by number of shards. The first run after each restart of the workers does not count."""
    _settings(bench, "airflow", _BY_HAND)
    by_shards: dict[str, list[_Seen]] = {str(number): [] for number in numbers}
    preload: dict[str, list[_Seen]] = {"with": [], "without": []}
    with pipeline(bench) as api:
        api.pause(DAG, False)
        for sitting in range(1, sittings + 1):
            for number in numbers:
                _restart(bench, shards=number)
                _run(bench, api, _FEW)
                by_shards[str(number)].append(seen := _run(bench, api, count))
                bench.say(f"sitting {sitting}, shards {number}: {seen.seconds:.1f} s")
            for name, text in (("with", PRELOAD), ("without", "")):
                _restart(bench, shards=1, settings=text)
                _run(bench, api, _FEW)
                preload[name].append(seen := _run(bench, api, _FEW))
                bench.say(f"sitting {sitting}, {name} preload: {seen.seconds:.1f} s, {seen.cpu:.1f} s of CPU")
            _restart(bench, shards=1, settings=PRELOAD)
    return {
        "payments": count,
        "few": _FEW,
        "sittings": sittings,
        "by_shards": {name: _sum_up(runs) for name, runs in by_shards.items()},
        "preload": {name: _sum_up(runs) for name, runs in preload.items()},
    }


def _settings(bench: Bench, home: str, text: str) -> None:
    file = bench.stack.home.path / home / "config" / "airflow_local_settings.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _restart(bench: Bench, *, shards: int, settings: str | None = None) -> None:
    bench.choose_shards(shards)
    for worker in WORKERS:
        bench.stack.stop(worker.name)
        if settings is not None:
            _settings(bench, worker.name, settings)
        bench.stack.start(worker.name)


def _run(bench: Bench, api: AirflowApi, count: int) -> _Seen:
    payments.produce(bench.kafka, INPUT, count, bench_topics.PARTITIONS)
    before = _cpu(bench)
    run = measured_run(api, DAG)
    return _Seen(run.seconds, _cpu(bench) - before, {name: run.tasks[name] for name in _STEPS if name in run.tasks})


def _cpu(bench: Bench) -> float:
    """Return the CPU seconds of both workers and of the tasks that they forked and that have ended."""
    total = 0.0
    for process in processes.find(bench.stack.home, [worker.name for worker in WORKERS]):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def _sum_up(runs: list[_Seen]) -> dict[str, Any]:
    return {
        "seconds": [run.seconds for run in runs],
        "cpu": [run.cpu for run in runs],
        "tasks": {name: median(run.tasks[name] for run in runs) for name in runs[0].tasks},
    }
