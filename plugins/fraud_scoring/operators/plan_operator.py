"""The operator of the task `plan`, which fixes the batch of a run."""

from __future__ import annotations

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.sdk import BaseOperator, Context

from fraud_scoring.airflow_connections import kafka_cluster, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.operators.batch_operator import DRAIN, REPORTS, RESOLVE_MODEL, log_counts
from fraud_scoring.run_url import run_url
from include.batch.manifest import Manifest
from include.models.selection import ModelChoice
from include.settings import Settings


class PlanOperator(BaseOperator, BranchMixIn):
    """Fix the batch, and return the numbers of its shards, over which `drain`, `predict` and `publish` are mapped.

    All tasks follow if there are unread payments, or if the run has a configuration: `resolve_model` applies it even
    without a shard. Only `reports` follows if just an earlier batch's report is pending. Without work the run ends.
    Push the XComs `manifest` and `alarms`.
    """

    def execute(self, context: Context) -> list[int]:
        """Return the shards' numbers, from 0; an empty list without unread payments."""
        with translate_permanent_errors():
            manifest, branches = self._plan(context)
        # If this skips a task, it ends `plan` by an exception (Airflow 3.3.2) and nothing is returned. Mapped tasks
        # that are not skipped need the returned numbers, so either all of them are skipped or none.
        self.do_branch(context, branches)
        return list(range(len(manifest.shards)))

    def _plan(self, context: Context) -> tuple[Manifest, list[str] | None]:
        from include.batch.cleaning import remove_old_batches, remove_old_records
        from include.batch.outbox import Outbox
        from include.batch.planner import plan, plan_alarms

        settings = Settings.from_environment()
        dag_run = context["dag_run"]
        # An invalid run configuration fails here, before any work.
        choice = ModelChoice.parse(dag_run.conf or {})
        cluster, storage = kafka_cluster(), staging(settings)
        # Clean up before anything is staged: otherwise a full disk would stay full.
        remove_old_batches(storage, settings.staging_hours)
        remove_old_records(storage, settings.record_hours)
        url = run_url(dag_run.dag_id, dag_run.run_id)
        manifest = plan(cluster, settings, storage, run_id=dag_run.run_id, run_url=url)
        context["ti"].xcom_push(key="manifest", value=manifest.to_dict())
        found_alarms = plan_alarms(cluster, settings, manifest)
        for alarm in found_alarms:
            if alarm.is_raised:
                self.log.error("%s: %s", alarm.kind, alarm.sentence)
        context["ti"].xcom_push(key=ALARMS, value=[alarm.to_dict() for alarm in found_alarms])
        pending = len(Outbox(storage, settings.group, settings.input_topic).entries())
        ranges = ", ".join(f"{part.partition}:[{part.start}, {part.end})" for part in manifest.partitions) or "nothing"
        log_counts(
            self,
            context,
            f"batch {manifest.batch_id}: {manifest.topic} {ranges}",
            {
                "batch": manifest.batch_id,
                "offsets": sum(part.end - part.start for part in manifest.partitions),
                "shards": len(manifest.shards),
                "lost_to_retention": manifest.lost,
                "lag": manifest.left_for_later_runs,
                "reports_owed": pending,
            },
        )
        if manifest.partitions or not choice.is_empty:
            return manifest, [DRAIN, RESOLVE_MODEL]
        return manifest, [REPORTS] if pending else None
