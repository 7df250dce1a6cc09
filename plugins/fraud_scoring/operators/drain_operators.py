"""Fixing the batch and reading it, in one task or shard by shard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.sdk import BaseOperator, Context

from fraud_scoring.airflow_connections import kafka_cluster, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.batch_operator import (
    DRAIN_SHARDS,
    REPORTS,
    RESOLVE_MODEL,
    BatchOperator,
    age_seconds,
    log_counts,
    run_url,
)
from include.batch.manifest import Manifest
from include.models.selection import ModelChoice
from include.settings import Settings


class DrainOperator(BaseOperator, BranchMixIn):
    """Fixes the batch, and reads it where it has one shard only. Goes on where payments wait or the run was given a
    configuration, straight to the reports where only an earlier batch's report is owed, and ends the run where there is
    nothing to do at all.

    Pushes the XComs `manifest` and `alarms`; returns the shards' numbers, over which their tasks are mapped, and none
    where there is but one.
    """

    def execute(self, context: Context) -> list[int]:
        with plain_failures():
            manifest, branches = self._drain(context)
        self.do_branch(context, branches)
        return list(range(len(manifest.shards))) if manifest.is_sharded else []

    def _drain(self, context: Context) -> tuple[Manifest, list[str] | None]:
        from include.batch.cleaning import remove_old_batches, remove_old_records
        from include.batch.drain import drain
        from include.batch.outbox import Outbox
        from include.batch.planner import alarms

        settings = Settings.from_environment()
        # A run configuration that cannot be meant fails here, before any work.
        choice = ModelChoice.parse(context["dag_run"].conf or {})
        cluster, storage = kafka_cluster(), staging(settings)
        # Before a byte is staged: a disk that is full would keep itself full.
        remove_old_batches(storage, settings.staging_hours)
        remove_old_records(storage, settings.record_hours)
        run_id = context["dag_run"].run_id
        manifest = drain(cluster, settings, storage, run_id=run_id, run_url=run_url(context))
        context["ti"].xcom_push(key="manifest", value=manifest.to_dict())
        raised = alarms(cluster, settings, storage, manifest)
        for alarm in raised:
            self.log.error("%s: %s", alarm.kind, alarm.sentence)
        context["ti"].xcom_push(key=ALARMS, value=[alarm.to_dict() for alarm in raised])
        owed = len(Outbox(storage, settings.group, settings.input_topic).entries())
        ranges = ", ".join(f"{part.partition}:[{part.start}, {part.end})" for part in manifest.partitions) or "nothing"
        log_counts(
            self,
            context,
            f"batch {manifest.batch_id}: {manifest.topic} {ranges}",
            {
                "batch": manifest.batch_id,
                **({"shards": len(manifest.shards)} if manifest.is_sharded else _found(manifest)),
                "lost_to_retention": manifest.lost,
                "lag": manifest.lag,
                "reports_owed": owed,
            },
        )
        if manifest.partitions:
            return manifest, [DRAIN_SHARDS, RESOLVE_MODEL] if manifest.is_sharded else [RESOLVE_MODEL]
        if not choice.is_empty:
            return manifest, [RESOLVE_MODEL]
        return manifest, [REPORTS] if owed else None


class DrainShardOperator(BatchOperator):
    """Reads one shard of the batch that was planned."""

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        from include.batch.drain import drain_shard

        drained = drain_shard(kafka_cluster(), settings, staging(settings), manifest, self.shard)
        self.tell(
            context,
            f"batch {manifest.batch_id}: shard {self.shard}",
            batch=manifest.batch_id,
            **_found(replace(manifest, lag=0).with_drained([drained])),
            left=drained.left,
        )


def _found(manifest: Manifest) -> dict[str, Any]:
    return {
        "payments": manifest.payments,
        "dead_letters": manifest.dead_letters,
        "oldest_age_seconds": age_seconds(manifest.oldest),
        "newest_age_seconds": age_seconds(manifest.newest),
    }
