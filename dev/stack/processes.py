"""Finding and ending every process that a stack started, also when its supervisor or a parent was killed.

Each carries its home and part in one environment variable. Process ids in files could name somebody else's process
after a reboot, and process groups lose whatever made a group of its own.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Mapping

import psutil

from dev.stack.home import Home

MARK = "FRAUD_STACK_PART"


def mark(home: Home, part: str) -> dict[str, str]:
    # SPT_NOENV: Airflow's process titles (setproctitle) then leave the environment legible.
    return {MARK: f"{home.path}:{part}", "SPT_NOENV": "1"}


def find(home: Home, parts: Iterable[str] | None = None) -> list[psutil.Process]:
    """The living processes of these parts (of all of them without any), children included."""
    wanted = None if parts is None else {f"{home.path}:{part}" for part in parts}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            value = process.environ().get(MARK, "")
        except (psutil.Error, OSError):  # gone, a kernel thread, or another user's: not ours
            continue
        if value in wanted if wanted is not None else value.startswith(f"{home.path}:"):
            found[process.pid] = process
    for process in list(found.values()):
        try:
            # PostgreSQL writes its titles over the environment of its children.
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.Error:
            continue
    return [process for process in found.values() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def end(home: Home, parts: Mapping[str, int] | None = None, *, seconds: float = 30.0) -> int:
    """End these parts, each by its own signal, what is left of them by SIGKILL; says how many processes there were."""
    family = find(home, parts)
    if not family:
        return 0
    pids = {process.pid for process in family}
    for process in family:
        if parent_of(process) not in pids:  # the head of a part ends its own children in its own way
            send(process, _signal_of(process, parts or {}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_alive, family)):
        time.sleep(0.05)
    kill(home, parts)
    return len(family)


def kill(home: Home, parts: Iterable[str] | None = None) -> None:
    """SIGKILL until nothing is left: a process may start another between the search and the signal."""
    deadline = time.monotonic() + 10
    while (family := find(home, parts)) and time.monotonic() < deadline:
        for process in family:
            send(process, signal.SIGKILL)
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.02)


def parent_of(process: psutil.Process) -> int:
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
