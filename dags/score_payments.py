"""
### Scores the card payments that wait on the input topic, once a minute

| task | does |
|---|---|
| `plan` | fixes the offsets of this run's batch, and shares its partitions out to shards: one, or `FRAUD_SHARDS` |
| `drain` `[ ]` | reads the payments of a shard and stages them |
| `resolve_model` | decides which MLflow model run scores the batch |
| `predict` `[ ]` | scores the payments of a shard |
| `publish` `[ ]` | writes predictions, dead letters and the group's offsets in one kafka transaction per partition |
| `reports` | finds the batches whose reports are pending |
| `email` | mails them. Skipped where none is pending |
| `catch_up` | starts the next run at once. Skipped unless this one left payments behind, for it has its limits |

Tasks marked `[ ]` have one instance per shard, named by its partitions. A run that finds nothing to do ends with
`plan`, and one with a model but no payments with `resolve_model`: all other tasks are skipped.

**Roll back** with the trigger button: `previous`, an MLflow run id, `runs:/<run id>/<name>`, `models:/name@alias`,
`models:/name/version` or `models:/m-<id>`.
Tick `keep` and the scheduled runs that follow use that model too, until a run with `latest` and `keep` ends it. The
Variable `fraud_model_hold` shows the held model.

**Nothing is published twice**, whatever is retried or cleared, because the group's committed offsets alone say what is
done. To start a run over, clear `plan`. If you clear
- `plan`, or a whole old run: the run scores what waits *now*, with the configuration it was given then; it changes a
  hold only if it has not done so before and no newer run has;
- `drain`: it reads the same offsets again;
- `resolve_model` or `predict`: the batch is scored again;
- `publish`: a batch that was committed is left alone, whichever run committed it; one that was not is published,
  unless the group's offset is elsewhere by now: then the task fails and names the offsets;
- `reports` or `email`: only reports that no mail server has accepted yet are sent.

`drain` and `predict` leave a batch alone whose publishing has begun. Where newer runs have taken over its payments,
the task fails and says so. Nothing needs to be done after either failure: the next run scores the payments.

**A failed run needs no action**: the next run scores what it has not committed.

**A backfill is refused**: a run scores what waits now, whatever its interval. To score payments again that were
already scored, use `fraud offsets set --to TIME`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, Param, XComArg, dag

from fraud_scoring import operators as step
from fraud_scoring.alarm_mails import mail_alarms
from fraud_scoring.assets import SCORED_PAYMENTS
from fraud_scoring.dag_defaults import dag_defaults
from fraud_scoring.incidents import IncidentNotifier, close_incident, late_run_alert
from fraud_scoring.report_operator import FraudReportOperator
from include.models.selection import MODEL_PATTERN
from include.settings import late_after

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
    # Later than the deadline, which would else be dropped unseen.
    dagrun_timeout=late_after() + timedelta(minutes=15),
    deadline=late_run_alert(late_after()),
    params=PARAMS,
    doc_md=__doc__,
    tags=["fraud", "kafka", "mlflow"],
    **dag_defaults(
        IncidentNotifier(),
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=1),
        execution_timeout=timedelta(minutes=10),
    ),
)
def score_payments() -> None:
    # It also knows what operators must hear of though nothing has failed.
    plan = step.PlanOperator(task_id=step.PLAN, on_success_callback=[close_incident, mail_alarms])
    shards = XComArg(plan)
    drain = step.DrainOperator.partial(task_id=step.DRAIN, map_index_template=step.SHARD_NAME).expand(shard=shards)
    resolve_model = step.ResolveModelOperator(task_id=step.RESOLVE_MODEL)
    # Where there is no shard, drain is skipped at once. What follows must wait for resolve_model, and fail with it.
    predict = step.PredictOperator.partial(
        task_id=step.PREDICT, trigger_rule="none_failed", map_index_template=step.SHARD_NAME
    ).expand(shard=shards)
    publish = step.PublishOperator.partial(
        task_id=step.PUBLISH,
        map_index_template=step.SHARD_NAME,
        # Shorter than the kafka transaction's own time-out, after which the broker would end it.
        execution_timeout=timedelta(minutes=4),
        outlets=[SCORED_PAYMENTS],
    ).expand(shard=shards)
    # Reports are owed for what was committed, whatever became of the rest.
    reports = step.PendingReportsOperator(
        task_id=step.REPORTS, trigger_rule="all_done", on_success_callback=[close_incident, mail_alarms]
    )
    # The next run sends pending reports: a mail server that hangs must not keep that one from scoring.
    email = FraudReportOperator(
        task_id=step.EMAIL, outbox=step.outbox, retries=0, execution_timeout=timedelta(seconds=90)
    )
    # The leaf that keeps a failed run red: reports passes it by only where nothing has failed.
    catch_up = step.CatchUpOperator(task_id=step.CATCH_UP, trigger_rule="none_failed_min_one_success")

    plan >> [drain, resolve_model] >> predict >> publish >> [reports, catch_up]
    plan >> reports >> [email, catch_up]


score_payments()
