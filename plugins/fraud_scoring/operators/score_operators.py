"""The operators that read, score and publish the batch, and the one that resolves the model run for it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from airflow.sdk import Context

from fraud_scoring.airflow_connections import kafka_cluster, staging, use_aws_connection
from fraud_scoring.held_model import change_hold, current_hold, mention_hold, record_earlier_change, triggered_by
from fraud_scoring.links import ModelRunLink
from fraud_scoring.operators.batch_operator import RESOLVE_MODEL, BatchOperator, ShardOperator, age_seconds
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
from include.models.resolve import DEFAULT, HOLD, RUN_CONFIGURATION, resolve
from include.models.selection import ModelChoice
from include.settings import Settings


class DrainOperator(ShardOperator):
    """Read and stage one shard of the batch."""

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        """Drain the shard and push the XCom `counts`."""
        from include.batch.drain import drain

        drained = drain(kafka_cluster(), settings, staging(settings), manifest, self.shard)
        staged = manifest.with_drained([drained])
        self.log_counts(
            context,
            f"batch {manifest.batch_id}: shard {self.shard}",
            batch=manifest.batch_id,
            payments=staged.payments,
            dead_letters=staged.dead_letters,
            left=drained.left,
            oldest_age_seconds=age_seconds(staged.oldest),
            newest_age_seconds=age_seconds(staged.newest),
        )


class ResolveModelOperator(BatchOperator):
    """Decide once per DAG run which model run scores the batch; every later task and every retry uses that one.

    This task also runs without unread payments: a run that is triggered to hold a model must fail if the model cannot
    be used.
    """

    operator_extra_links = (ModelRunLink(),)

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> dict[str, Any]:
        """Return the model run as a dict, which `predict` reads from the XCom. Change the hold if the run says so."""
        started, choice = time.monotonic(), ModelChoice.parse(context["dag_run"].conf or {})
        use_aws_connection()
        if choice.keep:
            record_earlier_change(context)
        trust_check_cache = None if settings.allow_pickles else ModelCache.from_settings(settings)
        if choice.model:
            run = resolve(
                choice.model,
                experiment=settings.experiment,
                chosen_by=RUN_CONFIGURATION,
                reason=choice.reason,
                trust_check_cache=trust_check_cache,
                unchecked_requirements=settings.unchecked_requirements,
            )
            run = replace(run, who=triggered_by(context))
            if choice.keep:
                change_hold(context, choice, run)
        else:
            hold = current_hold()
            run = resolve(
                hold.pinned if hold else settings.model,
                experiment=settings.experiment,
                chosen_by=HOLD if hold else DEFAULT,
                reason=hold.reason if hold else None,
                trust_check_cache=trust_check_cache,
                unchecked_requirements=settings.unchecked_requirements,
            )
            run = replace(run, who=hold.who if hold else None)
        run = replace(run, seconds=round(time.monotonic() - started, 3))
        self.log_counts(
            context,
            f"batch {manifest.batch_id}: model run {run.run_id} ({run.asked}, by {run.chosen_by})",
            batch=manifest.batch_id,
            model_run_id=run.run_id,
            asked=run.asked,
            chosen_by=run.chosen_by,
        )
        return run.to_dict()


class PredictOperator(ShardOperator):
    """Score one shard of the batch."""

    operator_extra_links = (ModelRunLink(),)

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        """Score the shard and push the XCom `counts`."""
        from include.batch.predict import predict

        resolved = context["ti"].xcom_pull(task_ids=RESOLVE_MODEL)
        if resolved is None:
            raise StagingError(
                f"the task {RESOLVE_MODEL} has returned no model run in this run: run or clear {RESOLVE_MODEL} first"
            )
        run = ModelRun.from_dict(resolved)
        use_aws_connection()
        with mention_hold(run):
            scored = predict(settings, staging(settings), manifest, run, self.shard)
        used = scored.model["run_id"]
        if used != run.run_id:
            self.log.warning(
                "the predictions of model run %s are kept, not replaced by %s: their publishing has begun",
                *(used, run.run_id),
            )
        self.log_counts(
            context,
            f"batch {manifest.batch_id}: model run {used}",
            batch=manifest.batch_id,
            model_run_id=used,
            scored=scored.scored,
            frauds=scored.frauds,
            dead_letters=scored.dead_letters,
            dead_letter_reasons=scored.reasons,
        )


class PublishOperator(ShardOperator):
    """Publish one shard of the batch."""

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> None:
        """Publish the shard's predictions and dead letters, and push the XCom `counts`."""
        from include.batch.publish import publish

        published = publish(kafka_cluster(), settings, staging(settings), manifest, shard=self.shard)
        self.log_counts(
            context,
            f"batch {manifest.batch_id}: to {settings.output_topic}",
            batch=manifest.batch_id,
            published=published.predictions,
            dead_letters=published.dead_letters,
            newest_age_seconds=age_seconds(published.newest),
            partitions={partition: outcome.value for partition, outcome in published.outcomes.items()},
        )
