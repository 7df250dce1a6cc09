"""
### Record every scored payment in the ledger, a PostgreSQL database

The DAG runs after each batch that `score_payments` publishes, and every ten minutes in case such an event is lost. The
events only trigger the DAG. What is recorded already is defined by the offsets in the ledger: rows and offsets are
written in one database transaction, so each message is recorded once, even if a task is killed, retried or run twice.

| task | records | from |
|---|---|---|
| `record_predictions` | one row for each payment, with its prediction | the output topic |
| `record_batches` | one row for each batch: model and why it was chosen, counts, offsets, report | the staging area |

Messages of the output topic that are not predictions go to `FRAUD_OUTPUT_DEAD_LETTER_TOPIC`, with the reason in a
header. Operators get a mail if their share reaches `FRAUD_DEAD_LETTER_SHARE`, and another one when that ends.

**After a failed run**, correct what the error names. The next run continues at the offsets in the ledger. If the
ledger's database is down, payments are scored, published and mailed all the same.

**You may clear or trigger the DAG at any time**: recorded rows stay as they are. `fraud ledger show` shows how far it
has come, `fraud ledger rewind` makes it record again, and `fraud reconcile` proves that nothing is missing.

**A backfill is refused**: to record messages again, run `fraud ledger rewind`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag

from fraud_scoring.alarm_mails import mail_alarms
from fraud_scoring.assets import SCORED_PAYMENTS
from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier, close_incident
from fraud_scoring.operators import record_operators as step

NOTIFIER = IncidentNotifier(
    task_next="Scoring continues and reports are mailed. Predictions that are not recorded stay on the output topic "
    "until its retention deletes them; the next run records them."
)


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/10 * * * *", timezone="UTC"), assets=[SCORED_PAYMENTS]
    ),
    doc_md=__doc__,
    tags=["fraud", "kafka", "ledger"],
    **dag_defaults(
        NOTIFIER,
        retry_delay=timedelta(seconds=10),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=1),
        # A backlog is written in many transactions: those before the timeout stay committed.
        execution_timeout=timedelta(hours=1),
    ),
)
def record_predictions() -> None:
    """Define the tasks. They are independent: batches are recorded even if the topic cannot be read."""
    step.RecordPredictionsOperator(
        task_id="record_predictions",
        on_success_callback=[close_incident, mail_alarms],
        # A try that fails may have sent dead letters, which no later try finds again.
        on_failure_callback=[NOTIFIER, mail_alarms],
        on_retry_callback=mail_alarms,
    )
    step.RecordBatchesOperator(task_id="record_batches")


record_predictions()
