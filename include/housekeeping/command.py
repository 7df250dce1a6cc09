"""Airflow's own command, as a process of its own: its database is nobody else's to touch."""

from __future__ import annotations

import re
import subprocess
import sys
from threading import Timer

from include.errors import HousekeepingError

# What `db clean` says when it has copied rows that it is about to delete. It drops the copy before it says the next
# line, and only then can it be killed without leaving that behind.
_COPIED = "Moving data to table"
# Less than docker gives a container to end.
_ENDING_SECONDS = 8
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Violation|Exit)\b: .*)", re.MULTILINE)


def airflow(*words: str) -> str:
    """What it printed. Raises HousekeepingError, in one line. Where the caller is interrupted, the command ends too."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-u", "-m", "airflow", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A Ctrl-C in the terminal reaches the caller, which ends it in its own way.
        start_new_session=True,
    ) as process:
        said = line = ""
        try:
            for line in process.stdout or ():
                said += line
            process.wait()
        except BaseException:
            _end(process, line)
            raise
    if process.returncode:
        raise HousekeepingError(f"`airflow {' '.join(words[:2])}` failed: {_reason(said)}")
    return said


def _end(process: subprocess.Popen[str], said_last: str) -> None:
    if said_last.startswith(_COPIED) and process.stdout:
        patience = Timer(_ENDING_SECONDS, process.kill)
        patience.start()
        process.stdout.readline()
        patience.cancel()
    process.kill()


def _reason(said: str) -> str:
    """The last error that was raised, else the last line."""
    raised = _RAISED.findall(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return raised[-1] if raised else lines[-1] if lines else "it said nothing"
