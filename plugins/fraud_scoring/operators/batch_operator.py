"""What the operators share: their tasks' names, the batch that `plan` fixed, and how each logs what it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, Context

from fraud_scoring.failures import plain_failures
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
# The `map_index_template` of tasks mapped over shards. Airflow stores no more than 250 characters of it (3.3.2).
SHARD_NAME = "{{ partitions }}"
_NAMED = 8


class BatchOperator(BaseOperator):
    """A step after the batch is fixed."""

    def execute(self, context: Context) -> Any:
        with plain_failures():
            return self.step(context, Settings.from_environment(), batch_of(context))

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> Any:
        """Do the step's work on the batch of this run."""
        raise NotImplementedError

    def log_counts(self, context: Context, line: str, **counts: Any) -> None:
        """Log what the step did, and push it as the XCom `counts`."""
        log_counts(self, context, line, counts)


class ShardOperator(BatchOperator):
    """A step that works on one shard of the batch: mapped over the numbers of the shards, and named by SHARD_NAME."""

    def __init__(self, *, shard: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: Context) -> Any:
        numbers = [str(part.partition) for part in batch_of(context).shard_partitions(self.shard)]
        more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
        name = "partitions" if len(numbers) > 1 else "partition"
        context["partitions"] = f"{name} {', '.join(numbers[:_NAMED])}{more}"  # type: ignore[typeddict-unknown-key]
        return super().execute(context)


def batch_of(context: Context) -> Manifest:
    """Return the batch as `plan` fixed it: nothing of it is read yet. Raise StagingError where this run has none."""
    found = context["ti"].xcom_pull(task_ids=PLAN, key="manifest")
    if found is None:
        raise StagingError(f"{PLAN} has left no manifest in this run: run or clear {PLAN} first")
    return Manifest.from_dict(found)


def age_seconds(milliseconds: int | None) -> float | None:
    """Return the age of a Kafka timestamp in seconds."""
    return None if milliseconds is None else round(time.time() - milliseconds / 1000, 1)


def log_counts(operator: BaseOperator, context: Context, line: str, counts: Mapping[str, Any]) -> None:
    operator.log.info("%s: %s", line, ", ".join(f"{name} {value}" for name, value in counts.items() if name != "batch"))
    context["ti"].xcom_push(key="counts", value=dict(counts))
