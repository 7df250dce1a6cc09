"""Start the processes of contenders, wait until all are warm, let them work together, and end them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

from benchmarks.bench import Bench, BenchmarkError
from benchmarks.contender_task import Task
from dev.stack.part import ROOT

_TIMEOUT_SECONDS = 1800


class ContenderTimes(NamedTuple):
    """Hold the seconds from the start to the last process's end, and the report of each process."""

    seconds: float
    reports: list[dict[str, Any]]

    @property
    def payments(self) -> int:
        """Return the payments of all processes."""
        return sum(report.get("payments", 0) for report in self.reports)

    @property
    def peak_mb(self) -> float:
        """Return the largest peak of resident memory of a process, in MB."""
        return max(float(report["peak_mb"]) for report in self.reports)


def run_step(bench: Bench, name: str, tasks: Sequence[Task]) -> ContenderTimes:
    """Run a step in a new process for each task. None starts to work before all are warm."""
    started: list[subprocess.Popen[str]] = []
    try:
        for task in tasks:
            log = (bench.home / "contenders.log").open("ab")
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.contender_process", name],
                cwd=ROOT, env=bench.env, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
            log.close()
            started.append(process)
            _tell(process, json.dumps(asdict(task)))
        for process in started:
            _answer(bench, name, process)
        began = time.monotonic()
        for process in started:
            _tell(process, "go")
        reports = [_answer(bench, name, process) for process in started]
        seconds = time.monotonic() - began
        for process in started:
            process.wait(60)
        return ContenderTimes(seconds, reports)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None  # noqa: S101
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _answer(bench: Bench, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101
    line = process.stdout.readline()
    if not line:
        code = process.wait(_TIMEOUT_SECONDS)
        raise BenchmarkError(f"step {name} ended with exit code {code}; see {bench.home / 'contenders.log'}")
    answer: dict[str, Any] = json.loads(line)
    return answer


class Rates(NamedTuple):
    """Hold payments a second of several sittings."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Rates:
        """Return median, minimum and maximum."""
        return cls(median(values), min(values), max(values))
