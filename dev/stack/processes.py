"""Find and end every process that a stack started, also if its supervisor or a parent was killed.

Each process carries the stack's folder and its part in one environment variable. Process ids in files could belong to
other processes after a reboot, and a process can leave its process group.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Mapping

import psutil

from dev.stack.home import StackHome

MARK = "FRAUD_STACK_PART"


def mark(home: StackHome, part: str) -> dict[str, str]:
    """Return the variables by which a process of this part is found."""
    # With SPT_NOENV, setproctitle (Airflow's process titles) does not overwrite the environment.
    return {MARK: f"{home.path}:{part}", "SPT_NOENV": "1"}


def find(home: StackHome, parts: Iterable[str] | None = None) -> list[psutil.Process]:
    """Return the running processes of these parts (None: of all), children included."""
    wanted = None if parts is None else {f"{home.path}:{part}" for part in parts}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            value = process.environ().get(MARK, "")
        except (psutil.Error, OSError):  # ended, a kernel thread, or another user's process
            continue
        if value in wanted if wanted is not None else value.startswith(f"{home.path}:"):
            found[process.pid] = process
    for process in list(found.values()):
        try:
            # PostgreSQL's process titles overwrite the environment of its children.
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.Error:
            continue
    return [process for process in found.values() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def send(process: psutil.Process, number: int) -> None:
    """Send a signal, unless the process has ended."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def end(home: StackHome, parts: Mapping[str, int] | None = None, *, seconds: float = 30.0) -> int:
    """End these parts, each with its own signal, and what remains after `seconds` with SIGKILL. Return how many ran."""
    family = find(home, parts)
    if not family:
        return 0
    pids = {process.pid for process in family}
    for process in family:
        if parent_of(process) not in pids:  # a part's first process ends its own children
            send(process, _signal_of(process, parts or {}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_alive, family)):
        time.sleep(0.05)
    kill(home, parts)
    return len(family)


def kill(home: StackHome, parts: Iterable[str] | None = None) -> None:
    """Send SIGKILL until no process is left: one may start another between search and signal."""
    deadline = time.monotonic() + 10
    while (family := find(home, parts)) and time.monotonic() < deadline:
        for process in family:
            send(process, signal.SIGKILL)
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.02)


def parent_of(process: psutil.Process) -> int:
    """Return the parent's process id, or 0 if the process has ended."""
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def _signal_of(process: psutil.Process, signals: Mapping[str, int]) -> int:
    try:
        part = process.environ().get(MARK, "").rpartition(":")[2]
    except (psutil.Error, OSError):
        return signal.SIGTERM
    return signals.get(part, signal.SIGTERM)
