"""
### Score the card payments that wait on the input topic, once a minute

| task | does |
|---|---|
| `plan` | fixes the offsets of this run's batch, and distributes its partitions over shards: one, or `FRAUD_SHARDS` |
| `drain` `[ ]` | reads the payments of a shard and stages them |
| `resolve_model` | decides which MLflow model run scores the batch |
| `predict` `[ ]` | scores the payments of a shard |
| `publish` `[ ]` | commits predictions, dead letters and the group's offset, in one kafka transaction per partition |
| `reports` | finds the batches with a pending report |
| `email` | mails the pending reports; skipped if there are none |
| `catch_up` | starts the next run at once; skipped if this run's limits left no payments behind |

Tasks marked `[ ]` have one instance per shard, named by its partitions. A run with nothing to do ends with `plan`, and
a run that was triggered with a model while no payments wait ends with `resolve_model`: the other tasks are
skipped.

**To roll back**, use the trigger button. `Model` takes `previous`, an MLflow run id, `runs:/<run id>/<name>`,
`models:/name@alias`, `models:/name/version` or `models:/m-<id>`. With `Keep`, the scheduled runs after it use that
model too, until a run with `latest` and `Keep` ends the hold. The Variable `fraud_model_hold` shows the held model.

**You may retry or clear any task**: no payment is published twice, because only the group's committed offsets define
what is done. To start a run over, clear `plan`. If you clear
- `plan`, or a whole old run: the run scores the payments that wait *now*, with its original configuration. It changes a
  hold only if it has not done so before and no newer run has;
- `drain`: it reads the same offsets again;
- `resolve_model` or `predict`: the batch is scored again;
- `publish`: partitions that are committed already, by whichever run, are left alone. Others are published, unless the
  group's offset has changed: then the task fails and names the offsets;
- `reports` or `email`: only reports that no mail server has accepted yet are mailed.

`drain` and `predict` do not change a batch whose publishing has begun. If newer runs have taken over its payments, the
task fails and says so. Nothing needs to be done after either failure: the next run scores the payments.

**A failed run needs no action**: the next run scores the payments that it did not commit.

**A backfill is refused**: a run scores the payments that wait now, whatever its data interval. To score payments again,
run `fraud offsets set --to TIME`.
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
        "Empty: the held model, or FRAUD_MODEL if none is held.",
    ),
    "keep": Param(
        False,
        type="boolean",
        title="Keep",
        description="Use this model for the scheduled runs after this one, too. With latest: end the hold.",
    ),
    "reason": Param(
        None, type=["null", "string"], title="Reason", description="Shown with the hold and in the ledger."
    ),
}


@dag(
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    # Later than the deadline: Airflow drops the deadlines of ended runs (3.3.2).
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
    """Define the tasks and their order."""
    # plan also finds alarms, so its success is mailed too.
    plan = step.PlanOperator(task_id=step.PLAN, on_success_callback=[close_incident, mail_alarms])
    shards = XComArg(plan)
    drain = step.DrainOperator.partial(task_id=step.DRAIN, map_index_template=step.SHARD_NAME).expand(shard=shards)
    resolve_model = step.ResolveModelOperator(task_id=step.RESOLVE_MODEL)
    # Without a shard drain is skipped at once, but predict must wait for resolve_model, and fail with it.
    predict = step.PredictOperator.partial(
        task_id=step.PREDICT, trigger_rule="none_failed", map_index_template=step.SHARD_NAME
    ).expand(shard=shards)
    publish = step.PublishOperator.partial(
        task_id=step.PUBLISH,
        map_index_template=step.SHARD_NAME,
        # Shorter than the timeout after which the broker aborts the kafka transaction.
        execution_timeout=timedelta(minutes=4),
        outlets=[SCORED_PAYMENTS],
    ).expand(shard=shards)
    # Committed partitions have a report, even if other partitions failed.
    reports = step.PendingReportsOperator(
        task_id=step.REPORTS, trigger_rule="all_done", on_success_callback=[close_incident, mail_alarms]
    )
    # The next run sends pending reports, so a mail server that hangs must not delay its scoring.
    email = FraudReportOperator(
        task_id=step.EMAIL, outbox=step.outbox, retries=0, execution_timeout=timedelta(seconds=90)
    )
    # This leaf makes a run with a failed task fail: reports skips it only if no task has failed.
    catch_up = step.CatchUpOperator(task_id=step.CATCH_UP, trigger_rule="none_failed_min_one_success")

    plan >> [drain, resolve_model] >> predict >> publish >> [reports, catch_up]
    plan >> reports >> [email, catch_up]


score_payments()
