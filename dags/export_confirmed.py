"""
### Export the verdicts on payments, once a day, for training

The task reads the verdicts that `fraud confirm` has stored in the ledger since the last export, and writes a Parquet
file to `FRAUD_CONFIRMED_URL`. The file has the columns of training data, with the person's verdict as `is_fraud`.
`fraud train --confirmed` reads all files there.

| task | exports | to |
|---|---|---|
| `export_confirmed` | new and changed verdicts | `FRAUD_CONFIRMED_URL`, with the connection `aws_default` |

The file has all payments of a `trans_num`, if one of them has a new verdict. A verdict that has changed is exported
again, in a later file: **for each `trans_num`, the newest file counts**. A day without new verdicts adds no file.

The files hold card numbers: protect the bucket as you protect the topics. The DAG deletes nothing there.

**After a failed run**, correct what the error names. The next run exports what is missing, under the same file name.

**You may clear or trigger the DAG at any time**, or run `fraud export-confirmed`, which does the same.

**A backfill is refused**: a run exports every verdict that is not exported yet, whatever its date.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.operators import export_operator as step

NOTIFIER = IncidentNotifier(
    task_next="Scoring continues, and verdicts stay in the ledger until this DAG works again. Its next run is "
    "tomorrow, unless you trigger one."
)


@dag(
    # Before people train in the morning.
    schedule=CronTriggerTimetable("47 2 * * *", timezone="UTC"),
    doc_md=__doc__,
    tags=["fraud", "ledger"],
    **dag_defaults(NOTIFIER, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=1)),
)
def export_confirmed() -> None:
    """Define the task."""
    step.ExportConfirmedOperator(task_id="export_confirmed")


export_confirmed()
