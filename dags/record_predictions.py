"""
### Records every scored payment in the ledger, a PostgreSQL database

It is woken by each batch that `score_payments` publishes, and every ten minutes by itself, so that nothing waits for
ever where an event was lost. What is recorded, only the offsets say that stand in the ledger beside the rows: both are
written in one database transaction, so each message is recorded once, whatever is killed, retried or run twice.

| task | records | from |
|---|---|---|
| `record_predictions` | one row a payment, with its prediction | the output topic |
| `record_batches` | one row a batch: which model and why, counts, offsets, who was mailed | the staging area |

What stands on the output topic and is no prediction goes to `FRAUD_OUTPUT_DEAD_LETTER_TOPIC`, with its reason.
Operators are mailed where it is much (`FRAUD_DEAD_LETTER_SHARE`), and when that is over.

**A failed run needs no hand** where what it names has been mended: the next one goes on where the ledger stands. While
the ledger's database is away, payments are scored, published and mailed all the same.

**Clear or trigger it at any time**: what is recorded already stays as it is. `fraud ledger show` says how far it is,
`fraud ledger rewind` has it record again, and `fraud reconcile` proves that nothing is missing.

**A backfill is refused**: to record again what is recorded, `fraud ledger rewind`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag

from fraud_scoring.alarm_mails import mail_alarms
from fraud_scoring.assets import SCORED_PAYMENTS
from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier, close_incident
from fraud_scoring.operators import record_operators as step

TELL = IncidentNotifier(
    task_next="Scoring goes on and reports are mailed. What is not recorded stays on the output topic until its "
    "retention deletes it; the next run records it."
)


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/10 * * * *", timezone="UTC"), assets=[SCORED_PAYMENTS]
    ),
    doc_md=__doc__,
    tags=["fraud", "kafka", "ledger"],
    **dag_defaults(
        TELL,
        retry_delay=timedelta(seconds=10),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=1),
        # A backlog is written in many transactions: what is done stays done if this ends it.
        execution_timeout=timedelta(hours=1),
    ),
)
def record_predictions() -> None:
    # Neither waits for the other: a topic that cannot be read keeps no batch from its record.
    step.RecordPredictionsOperator(
        task_id="record_predictions",
        on_success_callback=[close_incident, mail_alarms],
        # What a try sent to the dead letters before it failed, no later try finds.
        on_failure_callback=[TELL, mail_alarms],
        on_retry_callback=mail_alarms,
    )
    step.RecordBatchesOperator(task_id="record_batches")


record_predictions()
