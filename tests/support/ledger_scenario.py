"""Runs the DAG record_predictions on a stack and checks the ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from include.settings import Settings
from include.verify.findings import LEDGER_KINDS, LedgerReport
from include.verify.ledger_comparison import LedgerComparison
from include.verify.verification import verify
from include.verify.window import Bounds
from tests.support.breakpoint import Breakpoint
from tests.support.fault_scenario import OUTPUT, with_retries
from tests.support.ledger import query
from tests.support.live_stack import LiveStack
from tests.support.topics import Reader
from tests.support.waiting import wait_until

DAG = "record_predictions"
TASK = "record_predictions"


class LedgerScenario:
    def __init__(self, stack: LiveStack, breakpoint: Breakpoint) -> None:
        self.stack, self.api, self.breakpoint = stack, stack.airflow, breakpoint
        self.api.wait_for_dag(DAG)
        with_retries(lambda: self.api.pause(DAG, False))

    def trigger(self) -> str:
        return str(with_retries(lambda: self.api.trigger(DAG)))

    def finish(self, run_id: str, state: str | None = "success", seconds: float = 300) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (run := with_retries(lambda: self.api.run(DAG, run_id)))["state"] not in ("success", "failed"):
            assert time.monotonic() < deadline, f"{run_id} is still {run['state']}"
            time.sleep(0.2)
        tasks = self.tasks(run_id)
        assert state is None or run["state"] == state, tasks
        return tasks

    def active(self) -> list[dict[str, Any]]:
        return [run for run in self.api.runs(DAG, limit=50) if run["state"] in ("queued", "running")]

    def run(self, state: str | None = "success") -> str:
        run_id = self.trigger()
        self.finish(run_id, state)
        return run_id

    def tasks(self, run_id: str) -> dict[str, Any]:
        return dict(with_retries(lambda: self.api.tasks(DAG, run_id)))

    def stop_at(self, point: str, times: int = 1) -> tuple[str, int]:
        """Trigger a run and wait until its task stops at the breakpoint. Return the run's id and the process id."""
        self.breakpoint.set(point, times)
        run_id = self.trigger()
        return run_id, self.breakpoint.wait()

    def await_failed_try(self, run_id: str, task: str = TASK) -> None:
        def failed() -> bool:
            now = self.tasks(run_id)[task]
            return now["state"] in ("up_for_retry", "failed") or now["try_number"] > 1

        wait_until(failed, f"no try of {task} failed in {run_id}", 90)

    def rows(self) -> int:
        return int(query(self.stack.ledger, "SELECT count(*) FROM ledger.predictions")[0][0])

    def waits(self) -> bool:
        """Return whether messages of the output topic are not recorded yet."""
        known = dict(
            query(
                self.stack.ledger, "SELECT partition, next_offset FROM ledger.recorded_offsets WHERE topic = %s", OUTPUT
            )
        )
        ends = Reader(self.stack.bootstrap_servers, OUTPUT)._starts
        return any(known.get(number, 0) < end for number, end in ends.items())

    def process_backlog(self, runs: int = 5, state: str | None = "success") -> None:
        """Trigger runs until all predictions and batch records are recorded."""
        self.run(state)
        for _ in range(runs):
            if not self.waits():
                return
            self.run(state)
        assert not self.waits()

    def verdict(self, window: Mapping[int, tuple[int, int]]) -> LedgerReport:
        bounds = [{number: pair[side] for number, pair in window.items()} for side in (0, 1)]
        settings = Settings()
        with self.stack.ledger.open("a test") as connection:
            check = LedgerComparison(connection, str(self.stack.ledger), settings.group)
            found = verify(
                self.stack.cluster,
                settings,
                start=Bounds(by_partition=bounds[0]),
                end=Bounds(by_partition=bounds[1]),
                ledger=check,
            )
        assert found.ledger is not None
        return found.ledger

    def problems(self, window: Mapping[int, tuple[int, int]]) -> list[str]:
        found = self.verdict(window)
        kinds = [f"{kind}: {one}" for kind in ("foreign", *LEDGER_KINDS) for one in found.findings(kind)]
        waiting = found.count("waiting")
        return kinds + ([f"{waiting} wait"] if waiting else [])

    def check(self, window: Mapping[int, tuple[int, int]]) -> None:
        """Record everything; check that each payment published of the window has a row and each batch a record."""
        self.process_backlog()
        assert self.problems(window) == []
