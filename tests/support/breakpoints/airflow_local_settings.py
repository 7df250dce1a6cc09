"""Airflow's own hook for site settings: gives the system tests' scheduler breakpoints, and tasks that start fast.

`$AIRFLOW_HOME/breakpoint` names a point of publish and which time it is passed ("offsets sent 2"). The process that
gets there takes the file away, so that no other one stops, writes its id to `breakpoint.pid` and stops itself.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections import Counter
from pathlib import Path

HOME = Path(os.environ["AIRFLOW_HOME"])
passed: Counter[str] = Counter()


def reached(point: str) -> None:
    passed[point] += 1
    file = HOME / "breakpoint"
    if not file.exists() or file.read_text() != f"{point} {passed[point]}":
        return
    file.unlink()
    pid = HOME / "breakpoint.pid.part"
    pid.write_text(str(os.getpid()))
    pid.rename(HOME / "breakpoint.pid")
    os.kill(os.getpid(), signal.SIGSTOP)


if "scheduler" in sys.argv:
    # Every task is a fork of the scheduler and inherits these: they would take most of its time.
    import boto3  # noqa: F401
    import mlflow.pyfunc
    import mlflow.sklearn  # noqa: F401
    import pandas as pd  # noqa: F401

    import include.batch.drain
    import include.batch.predict
    import include.batch.publish
    import include.models.load
    import include.models.score

    include.batch.publish.publish = functools.partial(include.batch.publish.publish, reached=reached)
