"""What a run leaves to do: reports to mail, and payments that its limits left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from fraud_scoring.connections import kafka_settings, staging
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.step import CATCH_UP, EMAIL, batch_of, tell
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

if TYPE_CHECKING:
    from include.batch.outbox import Outbox
    from include.batch.storage import Storage


class OwedReportsOperator(BaseBranchOperator):
    """Sees what a run leaves to do: reports to mail, whatever became of publish, for a partition that got through has
    its report even if another one failed; and payments that its limits left behind, which the next run takes at once.
    """

    def choose_branch(self, context: Context) -> list[str] | None:
        from include.batch.outbox import Outbox, note_what_is_committed

        with plain_failures():
            settings = Settings.from_environment()
            storage = staging(settings)
            outbox = Outbox(storage, settings.group, settings.input_topic)
            if outbox.entries():
                note_what_is_committed(kafka_settings(), settings, outbox)
            owed = outbox.owed_batches()
            left = _left(context, storage)
        counts = {"reports_owed": len(owed), "lag": left}
        tell(self, context, f"reports owed of batches {', '.join(owed) or 'none'}", counts)
        return ([EMAIL] if owed else []) + ([CATCH_UP] if left else []) or None


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


def _left(context: Context, storage: Storage) -> int:
    from include.batch.scored import ScoredBatch

    try:
        fixed = batch_of(context)
        if not fixed.partitions:
            return 0
        manifest = Manifest.load(storage, fixed.batch_id)
        return ScoredBatch.load(storage, manifest).left_of(manifest)
    except StagingError:
        # Of a batch that failed on its way nothing is known, and the run has failed.
        return 0
