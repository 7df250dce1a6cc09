"""What a run leaves to do: reports to mail, and payments that its limits left behind."""

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
from fraud_scoring.failures import plain_failures
from fraud_scoring.kept_incidents import KeptIncidents
from fraud_scoring.operators.batch_operator import CATCH_UP, EMAIL, batch_of, log_counts
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

if TYPE_CHECKING:
    from include.batch.batch_alarms import Alarm
    from include.batch.outbox import Outbox
    from include.batch.scored_batch import ScoredBatch
    from include.storage.staging import Storage


class OwedReportsOperator(BaseBranchOperator):
    """See what a run leaves to do, whatever became of its tasks: reports to mail, for a partition that got through has
    its report even if another one failed, and payments that its limits left behind, which the next run takes at once.

    Push the XCom `alarms`: whether the batch left many payments behind, and whether many became dead letters.
    """

    def choose_branch(self, context: Context) -> list[str] | None:
        """Return the tasks that have something to do. `catch_up` is also left to its trigger rule where a task of this
        run has failed: it then fails with it, and the run is red, as its other leaf need not be."""
        from include.batch.outbox import Outbox, record_committed_batches

        with plain_failures():
            settings = Settings.from_environment()
            storage = staging(settings)
            outbox = Outbox(storage, settings.group, settings.input_topic)
            if outbox.entries():
                record_committed_batches(kafka_cluster(), settings, outbox)
            owed = outbox.pending_batches()
            manifest, scored = _batch(context, storage)
            left = scored.offsets_left(manifest) if scored and manifest else 0
            found = list(self._alarms(context, settings, outbox, manifest, scored))
            for alarm in found:
                if alarm.cause:
                    self.log.error("%s: %s", alarm.cause, alarm.sentence)
            context["ti"].xcom_push(key=ALARMS, value=[alarm.to_dict() for alarm in found])
        counts = {"reports_owed": len(owed), "lag": left}
        log_counts(self, context, f"reports owed of batches {', '.join(owed) or 'none'}", counts)
        return ([EMAIL] if owed else []) + ([CATCH_UP] if left or self._has_failed(context) else []) or None

    def _has_failed(self, context: Context) -> bool:
        run, earlier = context["dag_run"], sorted(self.get_flat_relative_ids(upstream=True))
        states = ["failed", "upstream_failed"]
        return context["ti"].get_ti_count(run.dag_id, task_ids=earlier, run_ids=[run.run_id], states=states) > 0

    def _alarms(
        self,
        context: Context,
        settings: Settings,
        outbox: Outbox,
        manifest: Manifest | None,
        scored: ScoredBatch | None,
    ) -> Iterator[Alarm]:
        """Yield none where the run has no batch, and none of dead letters where none of it was published."""
        from include.batch.batch_alarms import find_lag_alarm
        from include.batch.dead_letter_alarm import find_dead_letter_alarm

        if manifest is None:
            return
        ends = {part.partition: part.end for part in manifest.partitions}
        if scored is not None:
            ends |= {scores.part.partition: scores.part.end for scores in scored.partitions}
        yield find_lag_alarm(batch_of(context), ends, settings)
        if scored is None:
            return
        batch_id = manifest.batch_id
        count = partial(KeptIncidents(settings, context["ti"].dag_id).count_dead_letters, batch_id)
        alarm = find_dead_letter_alarm(settings, batch_id, scored, outbox.committed_partitions(manifest), count)
        if alarm is not None:
            yield alarm


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


def _batch(context: Context, storage: Storage) -> tuple[Manifest | None, ScoredBatch | None]:
    """Return this run's batch, as far as it was read, and what predict found of it. Each is None where nothing is known
    of it: the run has no batch, or has failed."""
    from include.batch.scored_batch import ScoredBatch

    try:
        manifest = batch_of(context)
        if not manifest.partitions:
            return None, None
    except StagingError:
        return None, None
    try:
        manifest = Manifest.load(storage, manifest.batch_id)
        return manifest, ScoredBatch.load(storage, manifest)
    except StagingError:
        return manifest, None
