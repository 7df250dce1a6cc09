"""Run Airflow's own command in a process: only Airflow's code may change Airflow's database."""

from __future__ import annotations

import re
import subprocess
import sys
from threading import Timer

from include.errors import HousekeepingError

# `db clean` prints this once it has copied the rows that it is about to delete. It drops the copy before it prints the
# next line; killed before that, it would leave the copy in the database.
_COPIED = "Moving data to table"
# Less than the 10 seconds that Docker gives a container to stop.
_STOP_SECONDS = 8
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Violation|Exit)\b: .*)", re.MULTILINE)


def airflow(*arguments: str) -> str:
    """Run `airflow` with these arguments and return what it printed. If the caller is interrupted, stop the command.

    Raise HousekeepingError with the command's last error, in one line.
    """
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-u", "-m", "airflow", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A Ctrl-C in the terminal reaches the caller only, which then stops the command.
        start_new_session=True,
    ) as process:
        printed = line = ""
        try:
            for line in process.stdout or ():
                printed += line
            process.wait()
        except BaseException:
            _stop(process, line)
            raise
    if process.returncode:
        raise HousekeepingError(f"`airflow {' '.join(arguments[:2])}` failed: {_reason(printed)}")
    return printed


def _stop(process: subprocess.Popen[str], last_line: str) -> None:
    if last_line.startswith(_COPIED) and process.stdout:
        timer = Timer(_STOP_SECONDS, process.kill)
        timer.start()
        process.stdout.readline()
        timer.cancel()
    process.kill()


def _reason(printed: str) -> str:
    """Return the last error that was raised, else the last line."""
    raised = _RAISED.findall(printed)
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return raised[-1] if raised else lines[-1] if lines else "it printed nothing"
