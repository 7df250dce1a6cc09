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

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.operators import export_operator as step

TELL = IncidentNotifier(
    task_next="Scoring goes on, and verdicts stay in the ledger until this works again. The next run is tomorrow's, "
    "unless you trigger one."
)


@dag(
    # Before people train in the morning.
    schedule=CronTriggerTimetable("47 2 * * *", timezone="UTC"),
    doc_md=__doc__,
    tags=["fraud", "ledger"],
    **dag_defaults(TELL, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=1)),
)
def export_confirmed() -> None:
    step.ExportConfirmedOperator(task_id="export_confirmed")


export_confirmed()
