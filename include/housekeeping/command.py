"""Airflow's own command, as a process of its own: its database is nobody else's to touch."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

from include.errors import HousekeepingError

_ENDING_SECONDS = 20
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Violation|Exit)\b: .*)", re.MULTILINE)


def airflow(*words: str) -> str:
    """What it printed. Raises HousekeepingError, in one line. Where the caller is interrupted, so is the command."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "airflow", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )
    try:
        output, errors = process.communicate()
    except BaseException:
        # Not SIGTERM, which would leave the table behind that `db clean` works with.
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise
    if process.returncode:
        raise HousekeepingError(f"`airflow {' '.join(words[:2])}` failed: {_reason(errors) or _reason(output)}")
    return output


def _hear_interrupts() -> None:
    """Whatever a shell starts in the background is deaf to them, and so would be its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _reason(text: str) -> str:
    """The last error that was raised, else the last line."""
    raised = _RAISED.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return raised[-1] if raised else lines[-1] if lines else ""
