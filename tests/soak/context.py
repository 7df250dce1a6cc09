"""The context of a fault: runs at work, and functions that observe its effect and the recovery."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psutil

from dev.stack.processes import is_alive
from tests.soak.producer import SteadyProducer
from tests.soak.proof import Proof
from tests.support.commands import AirflowInTurn
from tests.support.fault_scenario import FaultScenario, with_retries
from tests.support.fault_stack import FaultStack
from tests.support.ledger_scenario import LedgerScenario
from tests.support.pipeline import DAG
from tests.support.waiting import wait_until


class NoEffectError(Exception):
    """The fault had no observed effect, so it does not count."""


@dataclass(frozen=True)
class PausedTask:
    """A task that is stopped at a breakpoint. `tries` are the try numbers of all tasks at that time."""

    run_id: str
    process: psutil.Process
    tries: dict[str, int]

    def attempt(self, task: str) -> int:
        """Return the task's try number when it was stopped, 1 if it had not started."""
        return max(1, self.tries[task])


class FaultContext:
    def __init__(
        self, scenario: FaultScenario, producer: SteadyProducer, proof: Proof, second: AirflowInTurn, rng: random.Random
    ) -> None:
        self.scenario, self.producer, self.proof, self.random = scenario, producer, proof, rng
        self.stack: FaultStack = scenario.stack
        self.second = second
        self.ledger = LedgerScenario(self.stack, scenario.breakpoint)

    def keep_running(self) -> None:
        """Trigger a run if none is active, and restart dead parts."""
        self.stack.recover()
        if not with_retries(self.scenario.pipeline.active):
            self.scenario.trigger()

    def hold(self, point: str, times: int = 1, seconds: float = 90) -> PausedTask:
        """Stop the next task that reaches the breakpoint, and return it."""
        breakpoint = self.scenario.breakpoint
        breakpoint.set(point, times)
        deadline = time.monotonic() + seconds
        while (pid := breakpoint.stopped_process()) is None:
            if time.monotonic() > deadline:
                breakpoint.clear()
                raise NoEffectError(f"no task came to {point!r} within {seconds:.0f} s")
            self.keep_running()
            time.sleep(0.5)
        runs = [run["dag_run_id"] for run in with_retries(self.scenario.pipeline.active) if run["state"] == "running"]
        if len(runs) != 1:
            raise NoEffectError(f"a task stands at {point!r}, but these runs are at work: {runs}")
        tasks = self.scenario.tasks(str(runs[0]))
        return PausedTask(str(runs[0]), psutil.Process(pid), {name: one["try_number"] for name, one in tasks.items()})

    def go_on(self) -> None:
        self.scenario.breakpoint.go_on()

    def scored_since(self, began: datetime, seconds: float = 120) -> str:
        """Return a successful run that began later, its mail included."""

        def ended() -> list[str]:
            self.keep_running()
            return [
                run["dag_run_id"]
                for run in with_retries(lambda: self.scenario.api.runs(DAG, limit=20))
                if run["state"] == "success" and datetime.fromisoformat(run["start_date"]) > began
            ]

        try:
            wait_until(lambda: bool(ended()), "no run was scored", seconds)
        except AssertionError as error:
            raise NoEffectError(str(error)) from error
        return ended()[0]

    def failed_try(self, held: PausedTask, task: str, seconds: float = 90) -> str:
        """Wait until Airflow counts a failed try, and describe it."""

        def failed() -> bool:
            now = self.scenario.tasks(held.run_id)[task]
            return now["state"] in ("up_for_retry", "failed") or now["try_number"] > held.attempt(task)

        try:
            wait_until(failed, f"no try of {task} failed", seconds)
        except AssertionError as error:
            raise NoEffectError(str(error)) from error
        return f"try {held.attempt(task)} of {task} failed in {held.run_id}"

    def says(self, held: PausedTask, task: str, words: str) -> str:
        try:
            self.scenario.await_words(held.run_id, task, words, held.attempt(task))
        except AssertionError as error:
            raise NoEffectError(f"{held.run_id}: {error}") from error
        return f"{task} of {held.run_id} said {words!r}"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the DAG, as an operator does: running tasks go on, no run starts."""
        api = self.scenario.api
        with_retries(lambda: api.pause(DAG, True))
        try:
            yield
        finally:
            with_retries(lambda: api.pause(DAG, False))

    @contextmanager
    def settled_topics(self) -> Iterator[None]:
        """Wait until no Kafka transaction is open: only then may a single broker be killed."""
        with self.producer.quiet():
            self.scenario.group.await_no_open_transaction("topic_1", "topic_2", "topic_1_dead_letters")
            yield

    def backlog(self) -> tuple[dict[int, int], set[str]]:
        """Return the topic's end offsets and the batches with pending reports."""
        return self.scenario.group.ends(), self._owed()

    def await_recovery(self, backlog: tuple[dict[int, int], set[str]], seconds: float = 300) -> None:
        """Wait until the payments before the fault are committed and pending reports are mailed."""
        ends: dict[int, int] | None = None
        owed: set[str] | None = None
        deadline = time.monotonic() + seconds
        while True:
            committed = self.scenario.group.committed_if_settled()
            if committed is not None:
                if ends is None:
                    # A topic that was made again ends before the earlier one did.
                    now = self.scenario.group.ends()
                    ends = {number: min(end, now[number]) for number, end in backlog[0].items() if number in now}
                if all(end == 0 or committed.get(number, 0) >= end for number, end in ends.items()):
                    owed = self._owed() if owed is None else owed & self._owed()
                    if not owed:
                        return
            if time.monotonic() > deadline:
                raise AssertionError(f"not recovered after {seconds:.0f} s: {committed} of {ends}, owed {owed}")
            self.keep_running()
            time.sleep(0.3)

    def _owed(self) -> set[str]:
        return {path.name.removesuffix(".committed") for path in self.stack.staging.glob("outbox/*/*/*")}

    def kill(self, process: psutil.Process) -> None:
        process.kill()
        wait_until(lambda: not is_alive(process), "it lives on", 30)
