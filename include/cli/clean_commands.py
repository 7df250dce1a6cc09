"""The commands `fraud clean-history` and `fraud clean-disk`, which clean what no task of the DAG can reach."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Annotated

import typer

from include.cli.console import TextOutput, write_error
from include.errors import FraudError
from include.settings import Settings

Every = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        min=0.001,
        max=1_000,
        help="Run until SIGTERM and clean at this interval; the first time within an hour.",
        show_default=False,
    ),
]
# The longest wait before the first cleaning, when other services are up, and before a failed one is repeated.
_FIRST_HOURS = 1.0


def clean_history(every: Every = None) -> None:
    """Delete runs older than FRAUD_HISTORY_DAYS (30) from Airflow's database, with everything that belongs to them.

    It calls `airflow db clean` for the runs of every DAG and needs the environment of Airflow's scheduler, because no
    task can reach that database. The last run of each DAG stays, and so do DAGs, connections, Variables and users.

    Exit code 0: cleaned; 1: something could not be deleted.
    """
    _repeat("clean-history", every, _clean_history)


def clean_disk(every: Every = None) -> None:
    """Delete old logs and cached models from this machine's disk.

    It trims Airflow's log folder to FRAUD_LOG_DAYS (14) and the model cache to FRAUD_MODEL_CACHE_GB.
    Run it on each worker that has a disk of its own: the DAG housekeeping reaches only the worker that it runs on. That
    DAG also deletes the logs that Airflow keeps on S3.

    Exit code 0: cleaned; 1: something could not be deleted.
    """
    _repeat("clean-disk", every, _clean_disk)


def _clean_history() -> str:
    from include.housekeeping.airflow_history import clean_history

    before = datetime.now(UTC) - timedelta(days=Settings.from_environment().history_days)
    started = time.monotonic()
    removed = ", ".join(f"{rows:,} of {table}" for table, rows in clean_history(before).items())
    return f"history before {before:%Y-%m-%d %H:%M} UTC: removed {removed or 'nothing'}, {_seconds_since(started)}"


def _clean_disk() -> str:
    from include.housekeeping.logs import log_folder, trim_logs
    from include.models.model_cache import ModelCache

    settings, started = Settings.from_environment(), time.monotonic()
    evicted = ModelCache.from_settings(settings).trim()
    logs = trim_logs(log_folder(), settings.log_days)
    return f"disk: removed {logs.files:,} logs ({logs.bytes:,} bytes) and {evicted} models, {_seconds_since(started)}"


def _seconds_since(started: float) -> str:
    return f"in {time.monotonic() - started:.1f} s"


def _repeat(command: str, every: float | None, clean: Callable[[], str]) -> None:
    signal.signal(signal.SIGTERM, _exit_on_signal)
    out = TextOutput()
    if every is None:
        out.line(clean())
        return
    # An invalid setting ends the service now instead of failing it every hour.
    Settings.from_environment()
    hours = min(every, _FIRST_HOURS)
    while True:
        time.sleep(hours * 3_600)
        try:
            out.line(clean())
            hours = every
        except FraudError as error:
            hours = min(every, _FIRST_HOURS)
            write_error(f"fraud {command}: {error}")


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    # Shells and service managers expect this exit code after a signal.
    sys.exit(128 + number)
