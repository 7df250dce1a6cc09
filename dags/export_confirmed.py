"""
### Exports the payments that people have confirmed, once a day, for training

What `fraud confirm` has noted in the ledger since the last export goes as a Parquet file to `FRAUD_CONFIRMED_URL`: the
columns of training data, with `is_fraud` as people say it was. `fraud train --confirmed` learns from all files there.

| task | exports | to |
|---|---|---|
| `export_confirmed` | new and changed verdicts, by whole `trans_num`s | `FRAUD_CONFIRMED_URL`, by `aws_default` |

A verdict that has changed is exported again, in a later file: **of a `trans_num`, the newest file counts**.

Files hold card numbers: the bucket needs the same care as the topics. Nothing is deleted there.

**A failed run needs no hand** where what it names has been mended: the next one stores what is missing, under the same
name. A day without new verdicts leaves no file.

**Clear or trigger it at any time**, or call `fraud export-confirmed`, which does the same.

**A backfill is refused**: one run exports every verdict that waits, however old.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronTriggerTimetable, dag

from fraud_scoring.incidents import IncidentNotifier, close_incident
from fraud_scoring.operators import export_operator as step
from fraud_scoring.run_types import ALL_BUT_BACKFILL

TELL = IncidentNotifier(
    task_next="Scoring goes on, and verdicts stay in the ledger until this works again. The next run is tomorrow's, "
    "unless you trigger one."
)

DEFAULT_ARGS = {
    "owner": "fraud",
    "retries": 2,
    "retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
    "on_failure_callback": TELL,
    "on_success_callback": close_incident,
}


@dag(
    # Before people train in the morning.
    schedule=CronTriggerTimetable("47 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=ALL_BUT_BACKFILL,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["fraud", "ledger"],
    # The task's own callback names the cause; this one hears of what kills it.
    on_failure_callback=TELL,
)
def export_confirmed() -> None:
    step.ExportConfirmedOperator(task_id="export_confirmed")


export_confirmed()
