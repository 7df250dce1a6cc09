"""The operators for what a run leaves to do: pending reports, and payments beyond its limits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from fraud_scoring.airflow_connections import kafka_cluster, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.incident_store import IncidentStore
from fraud_scoring.operators.batch_operator import CATCH_UP, EMAIL, log_counts, planned_batch
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

if TYPE_CHECKING:
    from include.batch.batch_alarms import AlarmState
    from include.batch.outbox import Outbox
    from include.batch.scored_batch import ScoredBatch
    from include.storage.staging import Storage


class PendingReportsOperator(BaseBranchOperator):
    """Find out what a run leaves to do, even if its tasks failed.

    There may be reports to mail: each published partition gets its report even if another one failed. There may be
    payments beyond the limits of the batch, which the next run takes at once. Push the XCom `alarms`: whether the
    batch left many payments, and whether many became dead letters.
    """

    def choose_branch(self, context: Context) -> list[str] | None:
        """Return the tasks that have work.

        If a task of this run has failed, `catch_up` is returned too. By its trigger rule it then gets the state
        upstream_failed, so that the run fails even if its other leaf task succeeds.
        """
        from include.batch.outbox import Outbox, record_committed_batches

        with translate_permanent_errors():
            settings = Settings.from_environment()
            storage = staging(settings)
            outbox = Outbox(storage, settings.group, settings.input_topic)
            if outbox.entries():
                record_committed_batches(kafka_cluster(), settings, outbox)
            pending = outbox.pending_batches()
            manifest, scored = _load_batch(context, storage)
            left = scored.offsets_left(manifest) if scored and manifest else 0
            alarms = list(self._find_alarms(context, settings, outbox, manifest, scored))
            for alarm in alarms:
                if alarm.is_raised:
                    self.log.error("%s: %s", alarm.cause, alarm.sentence)
            context["ti"].xcom_push(key=ALARMS, value=[alarm.to_dict() for alarm in alarms])
        counts = {"reports_owed": len(pending), "lag": left}
        log_counts(self, context, f"reports pending of batches {', '.join(pending) or 'none'}", counts)
        return ([EMAIL] if pending else []) + ([CATCH_UP] if left or self._has_failed(context) else []) or None

    def _has_failed(self, context: Context) -> bool:
        run, upstream = context["dag_run"], sorted(self.get_flat_relative_ids(upstream=True))
        states = ["failed", "upstream_failed"]
        return context["ti"].get_ti_count(run.dag_id, task_ids=upstream, run_ids=[run.run_id], states=states) > 0

    def _find_alarms(
        self,
        context: Context,
        settings: Settings,
        outbox: Outbox,
        manifest: Manifest | None,
        scored: ScoredBatch | None,
    ) -> Iterator[AlarmState]:
        """Yield the alarms: none if the run has no batch, and none about dead letters if none of it was published."""
        from include.batch.batch_alarms import find_backlog_alarm
        from include.batch.dead_letter_alarm import find_dead_letter_alarm

        if manifest is None:
            return
        ends = {part.partition: part.end for part in manifest.partitions}
        if scored is not None:
            ends |= {one.part.partition: one.part.end for one in scored.partitions}
        yield find_backlog_alarm(planned_batch(context), ends, settings)
        if scored is None:
            return
        batch_id = manifest.batch_id
        update_counts = partial(IncidentStore(settings, context["ti"].dag_id).update_dead_letter_counts, batch_id)
        committed = outbox.committed_partitions(manifest)
        alarm = find_dead_letter_alarm(settings, batch_id, scored, committed, update_counts)
        if alarm is not None:
            yield alarm


class CatchUpOperator(TriggerDagRunOperator):
    """Trigger the DAG's next run at once, unless one is queued: otherwise queued runs would pile up."""

    def __init__(self, **kwargs: Any) -> None:
        """Create the operator. It triggers the DAG that it belongs to."""
        super().__init__(
            trigger_dag_id="{{ dag.dag_id }}",
            trigger_run_id="catch_up__{{ macros.datetime.now(macros.dateutil.tz.UTC).isoformat() }}",
            # Airflow allows each logical date only once.
            logical_date=None,
            **kwargs,
        )

    def execute(self, context: Context) -> None:
        """Trigger the run. Raise AirflowSkipException if one is queued already."""
        queued = context["ti"].get_dr_count(dag_id=context["dag_run"].dag_id, states=["queued"])
        if queued:
            raise AirflowSkipException(f"no run is triggered: {queued} queued already")
        super().execute(context)


def outbox(context: Context) -> Outbox:
    """Return the queue of pending reports, for the email operator."""
    from include.batch.outbox import Outbox

    settings = Settings.from_environment()
    return Outbox(staging(settings), settings.group, settings.input_topic, settings.output_topic)


def _load_batch(context: Context, storage: Storage) -> tuple[Manifest | None, ScoredBatch | None]:
    """Return this run's batch as far as it was drained, and the result of `predict`.

    Both are None if the run has no batch, and the second is None if `drain` or `predict` has failed.
    """
    from include.batch.scored_batch import ScoredBatch

    try:
        manifest = planned_batch(context)
        if not manifest.partitions:
            return None, None
    except StagingError:
        return None, None
    try:
        manifest = Manifest.load(storage, manifest.batch_id)
        return manifest, ScoredBatch.load(storage, manifest)
    except StagingError:
        return manifest, None
