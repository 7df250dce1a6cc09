"""Code that the operators share: task ids, access to the batch that `plan` fixed, and the log line of counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, Context

from fraud_scoring.failures import translate_permanent_errors
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

PLAN = "plan"
DRAIN = "drain"
RESOLVE_MODEL = "resolve_model"
PREDICT = "predict"
PUBLISH = "publish"
REPORTS = "reports"
EMAIL = "email"
CATCH_UP = "catch_up"
# The `map_index_template` of tasks mapped over shards. Airflow 3.3.2 stores at most 250 characters of the result.
SHARD_NAME = "{{ partitions }}"
_MAX_LISTED = 8


class BatchOperator(BaseOperator):
    """A task that works on the batch of its DAG run, after `plan` has fixed it."""

    def execute(self, context: Context) -> Any:
        """Run the step, and return its result. A permanent error fails the task without retries."""
        with translate_permanent_errors():
            return self.step(context, Settings.from_environment(), planned_batch(context))

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> Any:
        """Do the task's work on the batch of this run."""
        raise NotImplementedError

    def log_counts(self, context: Context, line: str, **counts: Any) -> None:
        """Log the counts, and push them as the XCom `counts`."""
        log_counts(self, context, line, counts)


class ShardOperator(BatchOperator):
    """A task that works on one shard of the batch. It is mapped over the shards' numbers, and named by SHARD_NAME."""

    def __init__(self, *, shard: int, **kwargs: Any) -> None:
        """Create the operator. `shard` is the number of its shard, from 0."""
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: Context) -> Any:
        """Run the step as `BatchOperator` does, under a name that lists the shard's partitions."""
        numbers = [str(part.partition) for part in planned_batch(context).shard_partitions(self.shard)]
        more = f" and {len(numbers) - _MAX_LISTED} more" if len(numbers) > _MAX_LISTED else ""
        name = "partitions" if len(numbers) > 1 else "partition"
        context["partitions"] = f"{name} {', '.join(numbers[:_MAX_LISTED])}{more}"  # type: ignore[typeddict-unknown-key]
        return super().execute(context)


def planned_batch(context: Context) -> Manifest:
    """Return the batch as `plan` fixed it, before any of it was read. Raise StagingError if this run has none."""
    manifest = context["ti"].xcom_pull(task_ids=PLAN, key="manifest")
    if manifest is None:
        raise StagingError(f"the task {PLAN} has pushed no manifest in this run: run or clear {PLAN} first")
    return Manifest.from_dict(manifest)


def age_seconds(milliseconds: int | None) -> float | None:
    """Return the age in seconds of a Kafka timestamp, which counts milliseconds since 1970 in UTC."""
    return None if milliseconds is None else round(time.time() - milliseconds / 1000, 1)


def log_counts(operator: BaseOperator, context: Context, line: str, counts: Mapping[str, Any]) -> None:
    """Log `line` and the counts, and push the counts as the XCom `counts`."""
    operator.log.info("%s: %s", line, ", ".join(f"{name} {value}" for name, value in counts.items() if name != "batch"))
    context["ti"].xcom_push(key="counts", value=dict(counts))
