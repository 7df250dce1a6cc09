"""The steps of the DAG score_payments as operators: contexts, connections and XComs here, the work in include/batch.

Each logs one line of counts and ids and pushes the same as its XCom `counts`. No payment data reaches either.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import BaseOperator, Context, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException

from fraud_scoring.connections import kafka_settings, staging, use_aws_connection
from fraud_scoring.failures import plain_failures
from fraud_scoring.links import ModelRunLink
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.models.choice import HOLD_VARIABLE, Hold, ModelChoice
from include.models.resolve import DEFAULT, HOLD, RUN_CONFIGURATION, ModelRun, resolve
from include.settings import Settings

if TYPE_CHECKING:
    from include.batch.outbox import Outbox

DRAIN = "drain"
RESOLVE_MODEL = "resolve_model"
PREDICT = "predict"
PUBLISH = "publish"
REPORTS = "reports"
EMAIL = "email"


def run_url(context: Context) -> str:
    run = context["dag_run"]
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{run.dag_id}/runs/{quote(run.run_id, safe=':+')}"


class _Step(BaseOperator):
    """A step after drain: it works on the batch that drain fixed."""

    def execute(self, context: Context) -> Any:
        with plain_failures():
            return self.step(context, Settings.from_environment(), _manifest(context))

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> Any:
        raise NotImplementedError

    def tell(self, context: Context, line: str, **counts: Any) -> None:
        _tell(self, context, line, counts)


class DrainOperator(BaseBranchOperator):
    """Goes on with resolve_model where payments wait or the run was given a configuration, straight to the reports
    where only an earlier batch's report is owed, and ends the run where there is nothing to do at all."""

    def choose_branch(self, context: Context) -> str | None:
        with plain_failures():
            return self._drain(context)

    def _drain(self, context: Context) -> str | None:
        from include.batch.cleaning import remove_old_batches
        from include.batch.drain import drain
        from include.batch.outbox import Outbox

        settings = Settings.from_environment()
        # A run configuration that cannot be meant fails here, before any work.
        choice = ModelChoice.parse(context["dag_run"].conf or {})
        storage = staging(settings)
        manifest = drain(
            kafka_settings(), settings, storage, run_id=context["dag_run"].run_id, run_url=run_url(context)
        )
        context["ti"].xcom_push(key="manifest", value=manifest.to_dict())
        owed = len(Outbox(storage, settings.group, settings.input_topic).entries())
        ranges = ", ".join(f"{part.partition}:[{part.start}, {part.end})" for part in manifest.partitions) or "nothing"
        _tell(
            self,
            context,
            f"batch {manifest.batch_id}: {manifest.topic} {ranges}",
            {
                "batch": manifest.batch_id,
                "payments": manifest.payments,
                "dead_letters": manifest.dead_letters,
                "lost_to_retention": manifest.lost,
                "lag": manifest.lag,
                "reports_owed": owed,
            },
        )
        remove_old_batches(storage, settings.staging_hours)
        if manifest.partitions:
            return RESOLVE_MODEL
        if not choice.is_empty:
            return RESOLVE_MODEL
        return REPORTS if owed else None


class ResolveModelOperator(_Step):
    """Decides once per run which model run scores the batch; every later step and every retry uses that one."""

    operator_extra_links = (ModelRunLink(),)

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> dict[str, Any]:
        choice = ModelChoice.parse(context["dag_run"].conf or {})
        use_aws_connection()
        columns = (Manifest.load(staging(settings), manifest.batch_id).columns if manifest.partitions else ()) or None
        if choice.model:
            run = resolve(
                choice.model,
                experiment=settings.experiment,
                chosen_by=RUN_CONFIGURATION,
                reason=choice.reason,
                columns=columns,
            )
            if choice.keep:
                self._hold(context, choice, run)
        else:
            held = Variable.get(HOLD_VARIABLE, default=None)
            hold = Hold.from_json(held) if held else None
            run = resolve(
                hold.pinned if hold else settings.model,
                experiment=settings.experiment,
                chosen_by=HOLD if hold else DEFAULT,
                reason=hold.reason if hold else None,
                columns=columns,
            )
        self.tell(
            context,
            f"batch {manifest.batch_id}: model run {run.run_id} ({run.asked}, by {run.chosen_by})",
            batch=manifest.batch_id,
            model_run_id=run.run_id,
            asked=run.asked,
            chosen_by=run.chosen_by,
        )
        return run.to_dict()

    def _hold(self, context: Context, choice: ModelChoice, run: ModelRun) -> None:
        if choice.ends_hold:
            if Variable.get(HOLD_VARIABLE, default=None):
                Variable.delete(HOLD_VARIABLE)
            self.log.info("no model is held any more")
            return
        hold = Hold(
            run_id=run.run_id,
            asked=run.asked,
            reason=choice.reason,
            who=context["dag_run"].triggering_user_name or "unknown",
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            model=f"models:/{run.name}/{run.version}" if run.asked.startswith("models:/") else None,
        )
        Variable.set(HOLD_VARIABLE, hold.to_json(), description="The model run that scores until the hold is ended")
        self.log.info("model run %s is held from now on", run.run_id)


class PredictOperator(_Step):
    operator_extra_links = (ModelRunLink(),)

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        if not manifest.partitions:
            raise AirflowSkipException("nothing waits")
        from include.batch.predict import predict

        resolved = context["ti"].xcom_pull(task_ids=RESOLVE_MODEL)
        if resolved is None:
            raise StagingError(f"{RESOLVE_MODEL} has decided nothing in this run: run or clear {RESOLVE_MODEL} first")
        run = ModelRun.from_dict(resolved)
        use_aws_connection()
        scored = predict(settings, staging(settings), manifest, run)
        used = scored.model["run_id"]
        if used != run.run_id:
            self.log.warning("left as it was scored by model run %s: its publishing has begun", used)
        self.tell(
            context,
            f"batch {manifest.batch_id}: model run {used}",
            batch=manifest.batch_id,
            model_run_id=used,
            scored=scored.scored,
            frauds=scored.frauds,
            dead_letters=scored.dead_letters,
            dead_letter_reasons=scored.reasons,
        )


class PublishOperator(_Step):
    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        if not manifest.partitions:
            raise AirflowSkipException("nothing waits")
        from include.batch.publish import publish

        published = publish(kafka_settings(), settings, staging(settings), manifest)
        self.tell(
            context,
            f"batch {manifest.batch_id}: to {settings.output_topic}",
            batch=manifest.batch_id,
            published=published.predictions,
            dead_letters=published.dead_letters,
            partitions={partition: outcome.value for partition, outcome in published.outcomes.items()},
        )


class OwedReportsOperator(BaseBranchOperator):
    """Runs whatever became of publish: a partition that got through has its report, even if another one failed."""

    def choose_branch(self, context: Context) -> str | None:
        from include.batch.outbox import Outbox, note_what_is_committed

        with plain_failures():
            settings = Settings.from_environment()
            storage = staging(settings)
            outbox = Outbox(storage, settings.group, settings.input_topic)
            if outbox.entries():
                note_what_is_committed(kafka_settings(), settings, outbox)
            owed = outbox.owed_batches()
        _tell(self, context, f"reports owed of batches {', '.join(owed) or 'none'}", {"reports_owed": len(owed)})
        return EMAIL if owed else None


def outbox(context: Context) -> Outbox:
    """The owed reports, for the email operator."""
    from include.batch.outbox import Outbox

    settings = Settings.from_environment()
    return Outbox(staging(settings), settings.group, settings.input_topic, settings.output_topic)


def _manifest(context: Context) -> Manifest:
    found = context["ti"].xcom_pull(task_ids=DRAIN, key="manifest")
    if found is None:
        raise StagingError(f"{DRAIN} has left no manifest in this run: run or clear {DRAIN} first")
    return Manifest.from_dict(found)


def _tell(operator: BaseOperator, context: Context, line: str, counts: Mapping[str, Any]) -> None:
    operator.log.info("%s: %s", line, ", ".join(f"{name} {value}" for name, value in counts.items() if name != "batch"))
    context["ti"].xcom_push(key="counts", value=dict(counts))
