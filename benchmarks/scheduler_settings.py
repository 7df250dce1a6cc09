"""Compare Airflow's own settings: seconds of a run without payments and with 10,000, and CPU while idle.

    .venv/bin/python -m benchmarks.scheduler_settings --home /tmp/bench [--rounds 3] [--only "default;preload"]

It starts a stack in `--home`, or uses the one that runs there, trains a model if there is none, and stops the stack's
scheduler. Each variant runs the scheduler with other settings. The variants take turns, so that other work on the
machine affects all of them alike: only the ratios count.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.payments import produce
from dev.airflow_api import AirflowApi
from dev.stack import Stack
from dev.stack.part import ROOT

DAG = "score_payments"
PAYMENTS = 10_000

# The DAG off the schedule, so that only the benchmark triggers runs; then the variant's own setting.
SITE_SETTINGS = """\
import os
import sys


def dag_policy(dag):
    from airflow.sdk.definitions.timetables.simple import NullTimetable

    dag.timetable = NullTimetable()


if os.environ.get("PRELOAD") == "1":
    from include.preload import preload

    preload()
"""

# Airflow's defaults, then one change at a time. `stack` has all settings of the local stack.
DEFAULTS = {
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "CORE__PARALLELISM": "32",
    "CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "False",
}
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "preload": {"PRELOAD": "1"},
    "idle_sleep 0.3": {"SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3"},
    "idle_sleep 0.1": {"SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1"},
    "parallelism 8": {"CORE__PARALLELISM": "8"},
    "new interpreter": {"CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "True"},
    "task heartbeat 15": {"SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15"},
    "preload, 0.3, 8": {
        "PRELOAD": "1", "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3", "CORE__PARALLELISM": "8",
    },
    "preload, 0.1, 8": {
        "PRELOAD": "1", "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1", "CORE__PARALLELISM": "8",
    },
    "preload, 0.05, 8": {
        "PRELOAD": "1", "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05", "CORE__PARALLELISM": "8",
    },
}  # fmt: skip


@dataclass
class VariantTimes:
    """Hold the seconds of one variant, over all rounds.

    `…_cpu` are CPU seconds of the scheduler and its tasks; a busy machine affects them less. `idle…` is the share of a
    core, by process.
    """

    start: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    empty_cpu: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    full_cpu: list[float] = field(default_factory=list)
    tasks: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    idle_api: list[float] = field(default_factory=list)
    idle_postgres: list[float] = field(default_factory=list)


def main() -> None:
    """Measure the variants and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler_settings")
    parser.add_argument("--home", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=";".join(VARIANTS), help="variants, separated by semicolons")
    parser.add_argument("--empty", type=int, default=5, help="runs with nothing to do, in each round")
    parser.add_argument("--full", type=int, default=3, help=f"runs with {PAYMENTS} payments")
    parser.add_argument("--idle", type=float, default=15.0, help="seconds of idling")
    arguments = parser.parse_args()
    # SIGTERM also ends the processes that were started here.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    names = arguments.only.split(";")
    stack = Stack(arguments.home)
    began_here = stack.up(say=print)
    seen = {name: VariantTimes() for name in names}
    try:
        with _ready(stack) as (api, folder):
            for number in range(arguments.rounds):
                for name in names if number % 2 == 0 else reversed(names):
                    _measure(stack, api, folder, VARIANTS[name], seen[name], arguments)
                    print(f"round {number + 1}: {name}: {seen[name]}", flush=True)
    finally:
        if began_here:
            stack.down()
    _show(seen)


@contextmanager
def _ready(stack: Stack) -> Iterator[tuple[AirflowApi, Path]]:
    """Run the stack without its scheduler, with the DAG off the schedule and with a model."""
    _train(stack.env)
    api = AirflowApi(stack.env)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "airflow_local_settings.py").write_text(SITE_SETTINGS)
        for part in ("scheduler", "dag-processor"):
            stack.stop(part)
        try:
            with _process("dag-processor", stack, folder, {}):
                while _scheduled(api):
                    time.sleep(0.5)
                api.pause(DAG, False)
                yield api, folder
                api.pause(DAG, True)
        finally:
            api.close()
            for part in ("dag-processor", "scheduler"):
                stack.start(part)


def _scheduled(api: AirflowApi) -> bool:
    try:
        return api.request("GET", f"dags/{DAG}")["timetable_summary"] not in (None, "None")
    except httpx.HTTPStatusError:
        return True


def _train(environment: Mapping[str, str]) -> None:
    address = f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/model-versions/search"
    if not httpx.get(address, timeout=30).raise_for_status().json().get("model_versions"):
        fraud = str(Path(sys.executable).with_name("fraud"))
        words = ["train", "--features", "numeric", "--rows", "20000", "--seed", "1"]
        subprocess.run([fraud, *words], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)


@contextmanager
def _process(part: str, stack: Stack, folder: Path, settings: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Run a part of Airflow with other site settings for the duration of the block."""
    changed = {name if name == "PRELOAD" else f"AIRFLOW__{name}": value for name, value in settings.items()}
    environment = {**os.environ, **stack.env, **changed, "PYTHONPATH": f"{folder}:{ROOT}"}
    words = ["--skip-serve-logs"] if part == "scheduler" else []
    with (folder / f"{part}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "airflow", part, *words],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()


def _measure(
    stack: Stack,
    api: AirflowApi,
    folder: Path,
    variant: Mapping[str, str],
    seen: VariantTimes,
    many: argparse.Namespace,
) -> None:
    kafka: dict[str, Any] = {"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"]}
    began = time.time()
    with _process("scheduler", stack, folder, {**DEFAULTS, **variant}) as scheduler:
        while not _has_heartbeat(api, since=began):
            time.sleep(0.2)
        seen.start.append(time.time() - began)
        seen.first.append(_run(api)[0])
        _run(api)
        for _ in range(many.empty):
            before_run = _cpu_with_tasks(scheduler)
            seen.empty.append(_run(api)[0])
            seen.empty_cpu.append(_cpu_with_tasks(scheduler) - before_run)
        for number in range(many.full + 1):
            produce(kafka, "topic_1", PAYMENTS, partitions=3)
            before_run = _cpu_with_tasks(scheduler)
            seconds, tasks = _run(api)
            if number:  # the first one of each kind meets workers that have done nothing yet
                seen.full.append(seconds)
                seen.full_cpu.append(_cpu_with_tasks(scheduler) - before_run)
                seen.tasks.append(tasks)
        watched = {
            "idle": [scheduler],
            "idle_api": _processes(stack, "api-server"),
            "idle_postgres": _processes(stack, "postgres"),
        }
        before = {name: _cpu(processes) for name, processes in watched.items()}
        time.sleep(many.idle)
        for name, processes in watched.items():
            getattr(seen, name).append((_cpu(processes) - before[name]) / many.idle)


def _has_heartbeat(api: AirflowApi, since: float) -> bool:
    heartbeat = api.request("GET", "monitor/health")["scheduler"]["latest_scheduler_heartbeat"]
    return bool(heartbeat) and datetime.fromisoformat(heartbeat).timestamp() > since


def _run(api: AirflowApi) -> tuple[float, float]:
    """Return the seconds from the trigger to the run's end, and the sum of its tasks' seconds."""
    run_id = api.trigger(DAG)
    run = api.wait_for_run(DAG, run_id, 600)
    if run["state"] != "success":
        raise RuntimeError(f"run {run_id} is {run['state']}")
    durations = [task["duration"] or 0 for task in api.tasks(DAG, run_id).values()]
    begin, end = (datetime.fromisoformat(run[name]).timestamp() for name in ("queued_at", "end_date"))
    return end - begin, sum(durations)


def _processes(stack: Stack, part: str) -> list[psutil.Process]:
    parent = psutil.Process(next(row.pid for row in stack.status() if row.name == part and row.pid))
    return [parent, *parent.children(recursive=True)]


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _cpu_with_tasks(scheduler: psutil.Process) -> float:
    """Return CPU seconds. LocalExecutor's workers wait for tasks that they fork, so those are included."""
    total = 0.0
    for process in (scheduler, *scheduler.children()):
        times = process.cpu_times()
        total += times.user + times.system
        if process != scheduler:
            total += times.children_user + times.children_system
    return total


def _show(seen: Mapping[str, VariantTimes]) -> None:
    base = next(iter(seen.values()))
    columns = ("start", "first", "empty", "empty_cpu", "full", "full_cpu", "tasks", "idle", "idle_api", "idle_postgres")
    print(f"\n| variant | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, one in seen.items():
        cells = []
        for column in columns:
            value, of = statistics.median(getattr(one, column)), statistics.median(getattr(base, column))
            cells.append(f"{value:.2f} ({value / of:.2f})" if of else f"{value:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
