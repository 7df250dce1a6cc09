"""What a run leaves to do: reports to mail, and payments that its limits left behind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from fraud_scoring.airflow_connections import kafka_cluster, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import plain_failures
from fraud_scoring.kept_incidents import KeptIncidents
from fraud_scoring.operators.batch_operator import CATCH_UP, EMAIL, batch_of, log_counts
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

if TYPE_CHECKING:
    from include.batch.outbox import Outbox
    from include.batch.scored_batch import ScoredBatch
    from include.storage.staging import Storage


class OwedReportsOperator(BaseBranchOperator):
    """Sees what a run leaves to do: reports to mail, whatever became of publish, for a partition that got through has
    its report even if another one failed; and payments that its limits left behind, which the next run takes at once.

    Pushes the XCom `alarms`: whether many messages of the published batch became dead letters.
    """

    def choose_branch(self, context: Context) -> list[str] | None:
        from include.batch.outbox import Outbox, note_what_is_committed

        with plain_failures():
            settings = Settings.from_environment()
            storage = staging(settings)
            outbox = Outbox(storage, settings.group, settings.input_topic)
            if outbox.entries():
                note_what_is_committed(kafka_cluster(), settings, outbox)
            owed = outbox.owed_batches()
            manifest, scored = _scored(context, storage)
            left = scored.left_of(manifest) if scored and manifest else 0
            context["ti"].xcom_push(key=ALARMS, value=self._alarms(context, settings, outbox, manifest, scored))
        counts = {"reports_owed": len(owed), "lag": left}
        log_counts(self, context, f"reports owed of batches {', '.join(owed) or 'none'}", counts)
        return ([EMAIL] if owed else []) + ([CATCH_UP] if left else []) or None

    def _alarms(
        self,
        context: Context,
        settings: Settings,
        outbox: Outbox,
        manifest: Manifest | None,
        scored: ScoredBatch | None,
    ) -> list[dict[str, Any]]:
        """Empty where nothing is known: the run has no batch, or none of it was published."""
        from include.batch.dead_letter_alarm import find_dead_letter_alarm

        if manifest is None or scored is None:
            return []
        batch_id = manifest.batch_id
        count = partial(KeptIncidents(settings, context["ti"].dag_id).count_dead_letters, batch_id)
        alarm = find_dead_letter_alarm(settings, batch_id, scored, outbox.committed(manifest), count)
        if alarm is None:
            return []
        if alarm.cause:
            self.log.error("%s: %s", alarm.cause, alarm.sentence)
        return [alarm.to_dict()]


class CatchUpOperator(TriggerDagRunOperator):
    """Starts the DAG's next run at once, unless one waits already: each would start another, and they would pile up."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id="{{ dag.dag_id }}",
            trigger_run_id="catch_up__{{ macros.datetime.now(macros.dateutil.tz.UTC).isoformat() }}",
            # Airflow allows each logical date but once.
            logical_date=None,
            **kwargs,
        )

    def execute(self, context: Context) -> None:
        waiting = context["ti"].get_dr_count(dag_id=context["dag_run"].dag_id, states=["queued"])
        if waiting:
            raise AirflowSkipException(f"{waiting} run(s) wait already")
        super().execute(context)


def outbox(context: Context) -> Outbox:
    """The owed reports, for the email operator."""
    from include.batch.outbox import Outbox

    settings = Settings.from_environment()
    return Outbox(staging(settings), settings.group, settings.input_topic, settings.output_topic)


def _scored(context: Context, storage: Storage) -> tuple[Manifest | None, ScoredBatch | None]:
    """This run's batch and what predict found of it."""
    from include.batch.scored_batch import ScoredBatch

    try:
        fixed = batch_of(context)
        if not fixed.partitions:
            return None, None
        manifest = Manifest.load(storage, fixed.batch_id)
        return manifest, ScoredBatch.load(storage, manifest)
    except StagingError:
        # Of a batch that failed on its way nothing is known, and the run has failed.
        return None, None
