"""
### Trims what the scoring leaves behind, once a day

A run a minute leaves batches in the staging area, models in the cache and thousands of log files a day. Each task trims
one of them, on its own; no other task waits for it.

| task | trims | to |
|---|---|---|
| `trim_staging` | staged batches, but for those whose report is owed | `FRAUD_STAGING_HOURS` |
| | records of batches that no ledger has taken over | that or `FRAUD_TOPIC_RETENTION_HOURS`, the longer |
| `trim_models` | the model cache of its machine, but for models in use | `FRAUD_MODEL_CACHE_GB` |
| `trim_logs` | Airflow's log folder of its machine, and the one on S3, **of every DAG** | `FRAUD_LOG_DAYS` |

The runs of `score_payments` themselves trim the first two as well, each time that they stage a batch or download a
model: card data does not wait for this DAG. Workers that share no disk have `fraud clean-disk` for the others.

**Airflow's own database** is out of a task's reach: `fraud clean-history` trims it, to `FRAUD_HISTORY_DAYS`.

**A failed run needs no hand** where what it names has been mended: the next one trims all that has become old. Trigger
the DAG if the disk cannot wait for that.

**A backfill is refused**: one run trims all that is old.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.operators import trim_operators as step

TELL = IncidentNotifier(
    task_next="Scoring goes on, and what is old stays until this works again: disks fill up meanwhile. The next run is "
    "tomorrow's, unless you trigger one."
)


@dag(
    # At night in Europe, and not at a full hour, when everything else begins.
    schedule=CronTriggerTimetable("17 3 * * *", timezone="UTC"),
    doc_md=__doc__,
    tags=["fraud", "housekeeping"],
    **dag_defaults(TELL, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=1)),
)
def housekeeping() -> None:
    step.TrimStagingOperator(task_id="trim_staging")
    step.TrimModelsOperator(task_id="trim_models")
    step.TrimLogsOperator(task_id="trim_logs")


housekeeping()
