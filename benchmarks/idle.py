"""What the stack costs while nothing waits: processor seconds of each part, with the minute schedule and without."""

from __future__ import annotations

import time
from typing import Any

import psutil

from benchmarks.airflow import DAG, active, pipeline, rest
from benchmarks.bench import Bench
from dev.stack import processes

AIRFLOW = ("scheduler", "dag-processor", "triggerer", "api-server", "postgres")
_OTHERS = ("kafka", "mlflow", "s3", "mail")


def measure(bench: Bench, *, minutes: float, shards: int) -> dict[str, Any]:
    with pipeline(bench, shards) as api:
        # What Airflow does after a start is no idling.
        time.sleep(60)
        bench.say(f"{minutes:g} minutes without the schedule")
        resting = _stretch(bench, minutes)
        api.pause(DAG, False)
        _wait_for_run(bench, api)
        bench.say(f"{minutes:g} minutes with a run a minute that finds nothing")
        before = {run["dag_run_id"] for run in api.runs(DAG, limit=100)}
        running = _stretch(bench, minutes)
        runs = len({run["dag_run_id"] for run in api.runs(DAG, limit=100)} - before)
        rest(api)
    more = sum(running.values()) - sum(resting.values())
    return {
        "minutes": minutes,
        "runs": runs,
        "hour_seconds": {part: seconds * 60 / minutes for part, seconds in running.items()},
        "resting_hour_seconds": {part: seconds * 60 / minutes for part, seconds in resting.items()},
        "run_seconds": more / max(runs, 1),
    }


def _wait_for_run(bench: Bench, api: Any) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and not any(run["run_type"] == "scheduled" for run in api.runs(DAG)):
        time.sleep(1)
    while active(api):
        time.sleep(0.5)


def _stretch(bench: Bench, minutes: float) -> dict[str, float]:
    before = {part: cpu_seconds(bench, part) for part in AIRFLOW + _OTHERS}
    until = time.monotonic() + minutes * 60
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 60))
    return {part: cpu_seconds(bench, part) - seconds for part, seconds in before.items()}


def cpu_seconds(bench: Bench, part: str) -> float:
    """Of a part's living processes and of all that they have waited for: a task ends, and stays counted."""
    total = 0.0
    for process in processes.find(bench.stack.home, [part]):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)
