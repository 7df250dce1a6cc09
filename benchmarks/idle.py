"""Measure what the stack costs while no payments wait: CPU seconds of each part, with the schedule and without.

It also reads how long the DAG processor takes for the DAG file.
"""

from __future__ import annotations

import time
from typing import Any

import psutil

from benchmarks.airflow_runs import DAG, active, pause_when_idle, pipeline
from benchmarks.bench import Bench
from dev.stack import processes

AIRFLOW = ("scheduler", "dag-processor", "triggerer", "api-server", "postgres")
_OTHERS = ("kafka", "mlflow", "s3", "mail")


def measure(bench: Bench, *, minutes: float, shards: int) -> dict[str, Any]:
    """Return CPU seconds by part, and the seconds of the DAG file, over some minutes."""
    with pipeline(bench, shards) as api:
        # Airflow's work after its start does not count as idle.
        time.sleep(60)
        bench.say(f"{minutes:g} minutes without the schedule")
        resting, _ = _stretch(bench, api, minutes)
        api.pause(DAG, False)
        _wait_for_run(bench, api)
        bench.say(f"{minutes:g} minutes with a run a minute that finds nothing")
        before = {run["dag_run_id"] for run in api.runs(DAG, limit=100)}
        running, parses = _stretch(bench, api, minutes)
        runs = len({run["dag_run_id"] for run in api.runs(DAG, limit=100)} - before)
        pause_when_idle(api)
    more = sum(running.values()) - sum(resting.values())
    return {
        "minutes": minutes,
        "runs": runs,
        "hour_seconds": {part: seconds * 60 / minutes for part, seconds in running.items()},
        "resting_hour_seconds": {part: seconds * 60 / minutes for part, seconds in resting.items()},
        "run_seconds": more / max(runs, 1),
        "parse_seconds": parses,
    }


def _wait_for_run(bench: Bench, api: Any) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and not any(run["run_type"] == "scheduled" for run in api.runs(DAG)):
        time.sleep(1)
    while active(api):
        time.sleep(0.5)


def _stretch(bench: Bench, api: Any, minutes: float) -> tuple[dict[str, float], list[float]]:
    """Return CPU seconds by part, and the seconds of the DAG file, requested once a minute."""
    before = {part: cpu_seconds(bench, part) for part in AIRFLOW + _OTHERS}
    parses: dict[str, float] = {}
    until = time.monotonic() + minutes * 60
    while (left := until - time.monotonic()) > 0:
        # Not more often: each request costs CPU seconds, which are measured here.
        time.sleep(min(left, 60))
        dag = api.request("GET", f"dags/{DAG}")
        parses[dag["last_parsed_time"]] = dag["last_parse_duration"]
    return {part: cpu_seconds(bench, part) - seconds for part, seconds in before.items()}, list(parses.values())


def cpu_seconds(bench: Bench, part: str) -> float:
    """Return the CPU seconds of a part's processes and of all children that they have waited for."""
    total = 0.0
    for process in processes.find(bench.stack.home, [part]):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)
