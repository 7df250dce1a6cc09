"""
### Scores the card payments that wait on the input topic, once a minute

`drain` fixes the offsets of this run's batch and stages its payments, `resolve_model` decides which MLflow model run
scores it, `predict` scores, `publish` writes predictions, dead letters and the consumer group's offsets in one kafka
transaction per partition, `reports` sees which batches' reports are owed, and `email` mails them. A run that finds
nothing to do ends with `drain`; one that leaves payments behind, for it has its limits, starts the next one at once
(`catch_up`). With `FRAUD_SHARDS` above 1, the tasks named `…_shards` read, score and publish a batch of several
partitions side by side.

**Roll back** with the trigger button: `previous`, an MLflow run id, `runs:/<run id>/<name>`, `models:/name@alias`,
`models:/name/version` or `models:/m-<id>`.
Tick `keep` and the scheduled runs that follow use that model too, until a run with `latest` and `keep` ends it. What is
held stands in the Variable `fraud_model_hold`.

**Nothing is published twice**, whatever is retried or cleared, for only the group's committed offsets say what is done:
- clear `drain`, or a whole old run: it drains and scores what waits *now*, with the configuration it was given then;
  it changes a hold only if it has not done so before and no newer run has;
- clear `resolve_model` or `predict`: the batch is scored again if its publishing has not begun, else it is left alone;
  where newer runs have taken over its payments, the task fails and says so, and nothing needs to be done;
- clear `publish`: a batch that got through is left alone, whichever run published it; one that did not is published,
  unless the group stands elsewhere by now: then it fails and says so, and nothing needs to be done;
- clear `reports` or `email`: only reports that no mail server has accepted yet are sent.

**A failed run needs no hand**: what it has not committed is drained by the next run.

**A backfill is refused**: a run drains what waits now, whatever its interval. To score payments again that have been
scored, `fraud offsets set --to TIME`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import CronTriggerTimetable, Param, XComArg, dag

from fraud_scoring import operators as step
from fraud_scoring.alarm_mails import mail_alarms, mail_published_alarms
from fraud_scoring.assets import SCORED_PAYMENTS
from fraud_scoring.incidents import IncidentNotifier, close_incident, late_run_alert
from fraud_scoring.report_operator import FraudReportOperator
from fraud_scoring.run_types import ALL_BUT_BACKFILL
from include.models.selection import MODEL_PATTERN
from include.settings import late_after

DEFAULT_ARGS = {
    "owner": "fraud",
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=10),
    "on_failure_callback": IncidentNotifier(),
    "on_success_callback": close_incident,
}

# Shorter than the kafka transaction's own time-out, after which the broker would end it.
PUBLISH: Any = {"execution_timeout": timedelta(minutes=4), "outlets": [SCORED_PAYMENTS]}

PARAMS = {
    "model": Param(
        None,
        type=["null", "string"],
        pattern=MODEL_PATTERN,
        title="Model",
        examples=["latest", "previous"],
        description="latest, previous, an MLflow run id, runs:/<run id>/<name>, models:/name@alias, "
        "models:/name/version or models:/m-<id>. "
        "Empty: the model that is held, else the configured one.",
    ),
    "keep": Param(
        False,
        type="boolean",
        title="Keep",
        description="Hold on to this model for the scheduled runs that follow. With latest: end the hold.",
    ),
    "reason": Param(None, type=["null", "string"], title="Reason", description="Why, for whoever asks later."),
}


@dag(
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=ALL_BUT_BACKFILL,
    # Later than the deadline, which would else be dropped unseen.
    dagrun_timeout=late_after() + timedelta(minutes=15),
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    doc_md=__doc__,
    tags=["fraud", "kafka", "mlflow"],
    # The tasks' own callback names the cause; this one hears of what kills a task or the whole run.
    on_failure_callback=IncidentNotifier(),
    deadline=late_run_alert(late_after()),
)
def score_payments() -> None:
    # It also knows what operators must hear of though nothing has failed.
    first = step.DrainOperator(task_id=step.DRAIN, on_success_callback=[close_incident, mail_alarms])
    # A run that was given a configuration resolves its model even if there is nothing to drain.
    resolve_model = step.ResolveModelOperator(task_id=step.RESOLVE_MODEL, trigger_rule="none_failed")
    predict = step.PredictOperator(task_id=step.PREDICT)
    publish = step.PublishOperator(task_id=step.PUBLISH, **PUBLISH)
    # One way or the other, as the batch has it. Never as the settings have it while this file is parsed: a run whose
    # tasks change on the way comes to nothing.
    numbers = XComArg(first)
    drain_shards = step.DrainShardOperator.partial(task_id=step.DRAIN_SHARDS).expand(shard=numbers)
    predict_shards = step.PredictOperator.partial(task_id=step.PREDICT_SHARDS).expand(shard=numbers)
    publish_shards = step.PublishOperator.partial(task_id=step.PUBLISH_SHARDS, **PUBLISH).expand(shard=numbers)
    # Reports are owed for what was committed, whatever became of the rest; an empty leaf keeps a failed run red.
    # It knows what became of the batch, all shards together.
    reports = step.OwedReportsOperator(
        task_id=step.REPORTS, trigger_rule="all_done", on_success_callback=[close_incident, mail_published_alarms]
    )
    # What is owed, the next run sends: a mail server that hangs must not keep that one from scoring.
    email = FraudReportOperator(
        task_id=step.EMAIL, outbox=step.outbox, retries=0, execution_timeout=timedelta(seconds=90)
    )
    published = EmptyOperator(
        task_id="published",
        trigger_rule="none_failed_min_one_success",
        on_success_callback=None,
        on_failure_callback=None,
    )
    catch_up = step.CatchUpOperator(task_id=step.CATCH_UP, trigger_rule="none_failed_min_one_success")

    first >> [resolve_model, reports]
    drain_shards >> resolve_model >> [predict, predict_shards]
    predict >> publish >> [reports, published, catch_up]
    predict_shards >> publish_shards >> [reports, published, catch_up]
    reports >> [email, catch_up]


score_payments()
