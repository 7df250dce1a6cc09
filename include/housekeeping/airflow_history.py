"""Trim the history of runs in Airflow's database by `airflow db clean`."""

from __future__ import annotations

import re
from datetime import datetime

from include.errors import HousekeepingError
from include.housekeeping.command import airflow

# Tables that grow with each run (Airflow 3.3); rows that refer to them are deleted too. Not the others: `dag` stores
# what is paused, and cannot be cleaned while a version of it is in use; `dag_version` and `import_error` grow with
# deployments only; the triggerer removes its own triggers, and an old one may be an asset's watcher.
TABLES = (
    "callback",
    "celery_taskmeta",
    "dag_run",
    "job",
    "log",
    "revoked_token",
    "session",
    "task_instance",
    "task_reschedule",
    "xcom",
)
# Rows deleted in one transaction: other transactions wait for it, and an interruption does too.
_BATCH_ROWS = 20_000
_CHECKED_TABLE = re.compile(r"^Checking table (\w+)\s+Found (\d+) rows", re.MULTILINE)


def clean_history(before: datetime) -> dict[str, int]:
    """Delete runs before that time, and return the number of deleted rows by table, without rows that refer to them.

    Raise HousekeepingError if the command fails.
    """
    printed = airflow(
        "db",
        "clean",
        *("--tables", ",".join(TABLES)),
        *("--clean-before-timestamp", before.isoformat()),
        *("--batch-size", str(_BATCH_ROWS)),
        "--skip-archive",
        "--error-on-cleanup-failure",
        "--yes",
    )
    deleted = {table: int(rows) for table, rows in _CHECKED_TABLE.findall(printed)}
    if "dag_run" not in deleted:
        raise HousekeepingError("`airflow db clean` did not check the table dag_run: run `airflow db migrate` first")
    return {table: rows for table, rows in sorted(deleted.items()) if rows}
