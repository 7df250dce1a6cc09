"""The history of runs in Airflow's database, trimmed by `airflow db clean`."""

from __future__ import annotations

import re
from datetime import datetime

from include.errors import HousekeepingError
from include.housekeeping.command import airflow

# What grows with each run (Airflow 3.3); what hangs on it goes with it. None of the others: `dag` says what is paused,
# and cannot be cleaned while a version of it is in use; `dag_version` and `import_error` grow with deployments only;
# triggers are removed by the triggerer itself, and an old one may be an asset's watcher.
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
# One transaction deletes so many rows: others wait for it, and so does whoever interrupts it.
_BATCH = 20_000
_FOUND = re.compile(r"^Checking table (\w+)\s+Found (\d+) rows", re.MULTILINE)


def clean_history(before: datetime) -> dict[str, int]:
    """Rows removed, by table; those that went with them are not counted. Raises HousekeepingError."""
    said = airflow(
        "db",
        "clean",
        *("--tables", ",".join(TABLES)),
        *("--clean-before-timestamp", before.isoformat()),
        *("--batch-size", str(_BATCH)),
        "--skip-archive",
        "--error-on-cleanup-failure",
        "--yes",
    )
    found = {table: int(rows) for table, rows in _FOUND.findall(said)}
    if "dag_run" not in found:
        raise HousekeepingError("`airflow db clean` has found no runs to look at: is its database migrated?")
    return {table: rows for table, rows in sorted(found.items()) if rows}
