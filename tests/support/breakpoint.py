"""Stops a task of the scheduler or a worker at a breakpoint, so that a test can kill it there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dev.stack import Stack
from tests.support.waiting import wait_until

SETTINGS = Path(__file__).parent / "breakpoints" / "airflow_local_settings.py"


def install_breakpoints(stack: Stack) -> None:
    """Install the breakpoints; restart the scheduler if it runs already."""
    if write_breakpoints(stack.home.path / "airflow") and stack.is_up():
        for part in ("scheduler", "dag-processor"):
            stack.stop(part)
            stack.start(part)


def write_breakpoints(airflow_home: Path) -> bool:
    """Write the breakpoints. Return False if they exist already."""
    target = airflow_home / "config" / SETTINGS.name
    text = SETTINGS.read_text()
    if target.exists() and target.read_text() == text:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return True


class Breakpoint:
    def __init__(self, airflow_home: Path) -> None:
        self._wanted = airflow_home / "breakpoint"
        self._pid = airflow_home / "breakpoint.pid"

    def set(self, point: str, times: int = 1) -> None:
        """Stop the next task when it reaches `point` for the given time."""
        self._pid.unlink(missing_ok=True)
        part = self._wanted.with_suffix(".part")
        part.write_text(f"{point} {times}")
        part.rename(self._wanted)

    def wait(self, seconds: float = 180) -> int:
        """Wait for a stopped process, and return its id."""
        deadline = time.monotonic() + seconds
        while (pid := self.stopped_process()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"no task reached the breakpoint within {seconds:.0f} s")
            time.sleep(0.05)
        return pid

    def stopped_process(self) -> int | None:
        """Return the id of a stopped process, or None."""
        if not self._pid.exists() or self._state() != psutil.STATUS_STOPPED:
            return None
        return int(self._pid.read_text())

    def kill(self) -> None:
        os.kill(self.wait(), signal.SIGKILL)

    def go_on(self) -> None:
        os.kill(self.wait(), signal.SIGCONT)

    def clear(self) -> None:
        """Remove the breakpoint, and resume a stopped process."""
        self._wanted.unlink(missing_ok=True)
        if self._pid.exists() and self._state() == psutil.STATUS_STOPPED:
            self.go_on()
        self._pid.unlink(missing_ok=True)

    def _state(self) -> str:
        try:
            return str(psutil.Process(int(self._pid.read_text())).status())
        except psutil.NoSuchProcess:
            return "gone"


@contextmanager
def frozen(process: psutil.Process) -> Iterator[Callable[[], None]]:
    """Freeze a task and its worker, like a frozen machine: otherwise Airflow would not start another try.

    Yield a function that resumes only the task, and waits until it ended or is idle.
    """
    worker = process.parent()
    assert worker is not None
    worker.suspend()

    def wake() -> None:
        process.resume()
        wait_until(lambda: _is_at_rest(process), "it goes on and on", 90)

    try:
        yield wake
    finally:
        worker.resume()


def _is_at_rest(process: psutil.Process) -> bool:
    """Return whether the process ended, or used no processor time for a second."""
    try:
        before = process.cpu_times()
        time.sleep(1)
        return bool(process.cpu_times() == before)
    except psutil.NoSuchProcess:
        return True
