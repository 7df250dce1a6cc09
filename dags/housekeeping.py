"""
### Delete old files, once a day

A run every minute leaves batches in the staging area, models in the cache and thousands of log files a day. Each task
trims one of these; the tasks do not depend on each other.

| task | trims | to |
|---|---|---|
| `trim_staging` | staged batches without a pending report | `FRAUD_STAGING_HOURS` |
| | batch records that no ledger has read | that or `FRAUD_TOPIC_RETENTION_HOURS`, the longer one |
| `trim_models` | the model cache of its machine, without the models in use | `FRAUD_MODEL_CACHE_GB` |
| `trim_logs` | Airflow's log folder of its machine, and its logs on S3, **of every DAG** | `FRAUD_LOG_DAYS` |

The runs of `score_payments` trim batches and models too, when they stage a batch or download a model: card data does
not wait for this DAG. A task trims the disk of the worker that runs it: on other workers run `fraud clean-disk`.

**Airflow's database** cannot be trimmed by a task: run `fraud clean-history`, which trims it to `FRAUD_HISTORY_DAYS`.

**After a failed run**, correct what the error names. The next run deletes all that is old. If the disk cannot wait for
it, trigger the DAG.

**A backfill is refused**: a run deletes all that is old.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.operators import trim_operators as step

NOTIFIER = IncidentNotifier(
    task_next="Scoring continues, and old files stay until this DAG works again: disks may fill up. Its next run is "
    "tomorrow, unless you trigger one."
)


@dag(
    # At night in Europe, and not at a full hour, when many other jobs start.
    schedule=CronTriggerTimetable("17 3 * * *", timezone="UTC"),
    doc_md=__doc__,
    tags=["fraud", "housekeeping"],
    **dag_defaults(NOTIFIER, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=1)),
)
def housekeeping() -> None:
    """Define the tasks."""
    step.TrimStagingOperator(task_id="trim_staging")
    step.TrimModelsOperator(task_id="trim_models")
    step.TrimLogsOperator(task_id="trim_logs")


housekeeping()
