"""`fraud clean-history` and `fraud clean-disk`: what a task of the DAG `housekeeping` cannot reach."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Annotated

import typer

from include.errors import FraudError
from include.settings import Settings

Every = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        min=0.001,
        max=1_000,
        help="Go on until SIGTERM, and clean each time so many hours have passed; first within an hour.",
        show_default=False,
    ),
]
# What starts beside it comes first, and what has failed is tried again then.
_FIRST_HOURS = 1.0

HISTORY = (
    "Trim Airflow's database: runs older than FRAUD_HISTORY_DAYS (30), with all that belongs to them.\n\n"
    "It calls `airflow db clean`, for the runs of every DAG, and needs the environment of Airflow's scheduler: no task "
    "can reach that database. The last run of each DAG stays, and so do DAGs, connections, Variables and users. Exit "
    "code 1: something could not be trimmed."
)
DISK = (
    "Trim this machine's disk: Airflow's log folder to FRAUD_LOG_DAYS (14), the model cache to FRAUD_MODEL_CACHE_GB."
    "\n\nFor workers that share no disk, each of them: the DAG housekeeping reaches the one that it runs on. Logs that "
    "Airflow keeps on S3 are left to that DAG. Exit code 1: something could not be trimmed."
)


def clean_history(every: Every = None) -> None:
    _repeat(every, _clean_history)


def clean_disk(every: Every = None) -> None:
    _repeat(every, _clean_disk)


def _clean_history() -> str:
    from include.housekeeping.airflow_history import clean_history

    before = datetime.now(UTC) - timedelta(days=Settings.from_environment().history_days)
    began = time.monotonic()
    removed = ", ".join(f"{rows:,} of {table}" for table, rows in clean_history(before).items())
    return f"history before {before:%Y-%m-%d %H:%M} UTC: removed {removed or 'nothing'}, {_seconds(began)}"


def _clean_disk() -> str:
    from include.housekeeping.logs import log_folder, trim_logs
    from include.models.model_cache import ModelCache

    settings, began = Settings.from_environment(), time.monotonic()
    evicted = ModelCache.of(settings).trim()
    logs = trim_logs(log_folder(), settings.log_days)
    return f"disk: removed {logs.files:,} logs ({logs.bytes:,} bytes) and {evicted} models, {_seconds(began)}"


def _seconds(began: float) -> str:
    return f"in {time.monotonic() - began:.1f} s"


def _repeat(every: float | None, clean: Callable[[], str]) -> None:
    signal.signal(signal.SIGTERM, _end)
    if every is None:
        typer.echo(clean())
        return
    # Known before the first hour has passed.
    Settings.from_environment()
    hours = min(every, _FIRST_HOURS)
    while True:
        time.sleep(hours * 3_600)
        try:
            typer.echo(clean())
            hours = every
        except FraudError as error:
            hours = min(every, _FIRST_HOURS)
            typer.echo(f"fraud: {error}", err=True)


def _end(number: int, frame: FrameType | None) -> None:
    # As the shell counts it, and whoever watches services.
    sys.exit(128 + number)
