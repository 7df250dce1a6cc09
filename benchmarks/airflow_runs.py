"""Trigger runs of the DAG on the benchmarks' own stack, between scheduled runs, and return how long they took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks import bench_topics
from benchmarks.bench import DEAD_LETTERS, INPUT, OUTPUT, Bench, BenchmarkError
from benchmarks.forest import forest
from dev.airflow_api import AirflowApi

DAG, EMPTY = "score_payments", "empty_shape"


@dataclass(frozen=True)
class RunTimes:
    """Hold the seconds of a run from start to end, and in `waited` those in the queue before."""

    seconds: float
    waited: float
    began: float
    tasks: dict[str, float]
    skipped: list[str]


@contextmanager
def pipeline(bench: Bench, shards: int = 1) -> Iterator[AirflowApi]:
    """Run the whole stack with the forest as its only model, empty topics, and every DAG paused."""
    bench.need_disk(6)
    with bench.running(airflow=True, shards=shards):
        forest(bench)
        bench_topics.grow(bench.kafka, [INPUT, OUTPUT, DEAD_LETTERS])
        api = AirflowApi(bench.stack.env)
        try:
            for dag in (DAG, EMPTY):
                api.wait_for_dag(dag)
                api.pause(dag, True)
            yield api
        finally:
            api.close()


def measured_run(api: AirflowApi, dag: str, conf: Mapping[str, Any] | None = None, seconds: float = 900) -> RunTimes:
    """Trigger a run and return its times. Raises BenchmarkError if it fails."""
    run_id = api.trigger(dag, conf)
    run = api.wait_for_run(dag, run_id, seconds)
    if run["state"] != "success":
        states = {name: task["state"] for name, task in api.tasks(dag, run_id).items()}
        raise BenchmarkError(f"run {run_id} of {dag} is {run['state']}: {states}")
    tasks = api.instances(dag, run_id)
    done = [task for task in tasks if task["state"] == "success"]
    durations: dict[str, float] = {}
    for task in done:
        # For a mapped task, the shard that took longest.
        durations[task["task_id"]] = max(task["duration"] or 0.0, durations.get(task["task_id"], 0.0))
    return RunTimes(
        seconds=_time(run["end_date"]) - _time(run["start_date"]),
        waited=_time(run["start_date"]) - _time(run["queued_at"]),
        began=started(run),
        tasks=durations,
        skipped=sorted({task["task_id"] for task in tasks if task["state"] == "skipped"} - set(durations)),
    )


def wait_until_idle(api: AirflowApi, seconds: float) -> None:
    """Wait until no run is active and the next scheduled run is at least `seconds` away."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        now = datetime.now(UTC)
        if 60 - now.second > seconds and now.second > 2 and not active(api):
            return
        time.sleep(0.2)
    raise BenchmarkError(f"{DAG} does not come to rest: its scheduled runs take too long on this machine")


def started(run: Mapping[str, Any]) -> float:
    """Return when a run started, in seconds since 1970."""
    return _time(run["start_date"])


def ended(run: Mapping[str, Any]) -> float:
    """Return when a run ended, in seconds since 1970."""
    return _time(run["end_date"])


def runs_between(api: AirflowApi, first: float, last: float) -> int:
    """Return how many runs started in this time."""
    begun = [started(run) for run in api.runs(DAG, limit=10) if run["start_date"]]
    return sum(first <= moment < last for moment in begun)


def active(api: AirflowApi) -> bool:
    """Return whether a run is active."""
    return any(run["state"] in ("queued", "running") for run in api.runs(DAG, limit=10))


def pause_when_idle(api: AirflowApi) -> None:
    """Pause the DAG once no run is active: a paused DAG does not continue its runs."""
    wait_until_idle(api, 5)
    api.pause(DAG, True)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
