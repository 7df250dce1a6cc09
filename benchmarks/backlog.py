"""Measure how the DAG's own runs process a backlog of millions, and how much memory each task takes."""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
from confluent_kafka import TopicPartition

from benchmarks import bench_topics, payments
from benchmarks.airflow_runs import DAG, ended, pause_when_idle, pipeline, started
from benchmarks.bench import INPUT, Bench, BenchmarkError
from dev.airflow_api import AirflowApi
from dev.stack import processes
from include.kafka.cluster import Cluster
from include.settings import Settings

# Airflow's process title for a task's code; the task instance's id follows.
_TITLE = "airflow worker -- "
_STALLED = 400.0
_MIB = 1024**2


def measure(bench: Bench, *, count: int, shards: int) -> dict[str, Any]:
    """Return rates, memory and commits for a backlog of `count` payments."""
    bench.need_disk(6 + count * 4e-6)
    with pipeline(bench, shards) as api:
        before = sum(bench_topics.ends(bench.kafka, INPUT).values())
        took = payments.produce(bench.kafka, INPUT, count, bench_topics.PARTITIONS)
        bench.say(f"{count:,} payments wait ({count / took:,.0f} /s produced)")
        end = sum(bench_topics.ends(bench.kafka, INPUT).values())
        if end - before != count:
            raise BenchmarkError(f"{end - before:,} messages were added to {INPUT}, not {count:,}")
        memory = _Memory(bench)
        memory.start()
        try:
            began, clock = time.monotonic(), time.time()
            api.pause(DAG, False)
            # Triggered at once: otherwise up to a minute until the next scheduled run would be part of the figure.
            api.trigger(DAG)
            points = _follow(bench, end - count, count, began)
        finally:
            memory.stop()
        pause_when_idle(api)
        found = [run for run in api.runs(DAG, limit=100) if run["start_date"] and started(run) >= clock]
        peaks = memory.by_task(api, found)
        runs = [run for run in found if run["state"] == "success"]
    first = next(second for second, done in points if done)
    last, done = points[-1]
    # Measured from the first commit: how long the first run waited for the schedule does not count.
    moved = done - next(done for _, done in points if done)
    return {
        "payments": count,
        "shards": shards,
        "seconds": last,
        "per_second": done / last,
        "per_second_after_first_commit": moved / (last - first) if last > first else None,
        "run_rates": _rates(points, min(map(started, runs)) - clock, [ended(run) - clock for run in runs]),
        "points": points,
        "peak_mib": peaks,
    }


def _follow(bench: Bench, start: int, count: int, began: float) -> list[tuple[float, int]]:
    """Return seconds and committed payments, each time that their number has grown."""
    places = [TopicPartition(INPUT, number) for number in range(bench_topics.PARTITIONS)]
    points: list[tuple[float, int]] = [(0.0, 0)]
    moved = said = time.monotonic()
    with Cluster(bench.kafka).consumer(Settings().group) as consumer:
        while points[-1][1] < count:
            committed = sum(max(place.offset, 0) for place in consumer.committed(places, timeout=20))
            now = time.monotonic()
            if (done := committed - start) > points[-1][1]:
                points.append((now - began, done))
                moved = now
            if now - said > 10:
                bench.say(f"{points[-1][1]:,} of {count:,} committed")
                said = now
            if now - moved > _STALLED:
                raise BenchmarkError(f"{done:,} of {count:,} payments, and no more for {_STALLED:g} s")
            time.sleep(0.5)
    return points


def _rates(points: list[tuple[float, int]], begun: float, ends: list[float]) -> list[float]:
    """Return the payments a second of each run that committed some, from the end of the run before.

    Equal rates from first to last show that the time grows in proportion to the backlog. Times are in seconds since the
    start.
    """
    rates, done = [], 0
    for end in sorted(ends):
        reached = max(done_then for second, done_then in points if second <= end)
        if reached > done:
            rates.append((reached - done) / (end - begun))
        begun, done = end, reached
    return rates


class _Memory:
    """Sample the largest resident memory of each task's process, and its unique memory (not shared with its parent)."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[str, dict[str, float]] = {}

    def start(self) -> None:
        """Start sampling in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        scheduler: list[psutil.Process] = []
        while not self._stop.wait(0.5):
            try:
                if not scheduler or not scheduler[0].is_running():
                    scheduler = processes.find(self._bench.stack.home, ["scheduler"])[:1]
                for process in scheduler[0].children(recursive=True) if scheduler else []:
                    self._look(process)
            except psutil.Error:
                continue

    def _look(self, process: psutil.Process) -> None:
        title = " ".join(process.cmdline()).strip()
        if not title.startswith(_TITLE):
            return
        name = title.removeprefix(_TITLE)
        memory = process.memory_full_info()
        row = self.peaks.setdefault(name, {"rss": 0.0, "uss": 0.0})
        row["rss"] = max(row["rss"], memory.rss / _MIB)
        row["uss"] = max(row["uss"], memory.uss / _MIB)

    def by_task(self, api: AirflowApi, runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """Return the largest values of the runs' tasks, in MB, by task id."""
        found: dict[str, dict[str, float]] = {}
        for run in runs:
            for task in api.instances(DAG, run["dag_run_id"]):
                if peak := self.peaks.get(task["id"]):
                    most = found.setdefault(task["task_id"], peak)
                    found[task["task_id"]] = {kind: max(peak[kind], most[kind]) for kind in peak}
        return found
