"""What the operators share: their tasks' names, the batch that the first one fixed, and how each tells what it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf

from fraud_scoring.failures import plain_failures
from include.batch.manifest import Manifest
from include.errors import StagingError
from include.settings import Settings

DRAIN = "drain"
RESOLVE_MODEL = "resolve_model"
PREDICT = "predict"
PUBLISH = "publish"
REPORTS = "reports"
EMAIL = "email"
CATCH_UP = "catch_up"
# They take the place of others where a batch has several shards. No task group: resolve_model stands between them, and
# Airflow's UI (3.3.2) shows neither grid nor graph of a DAG in which a group is both before and behind a task.
DRAIN_SHARDS, PREDICT_SHARDS, PUBLISH_SHARDS = (f"{name}_shards" for name in (DRAIN, PREDICT, PUBLISH))


class BatchOperator(BaseOperator):
    """A step after the batch is fixed. `shard`: which share of its partitions it works on; most have but one."""

    def __init__(self, *, shard: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: Context) -> Any:
        with plain_failures():
            return self.step(context, Settings.from_environment(), batch_of(context))

    def step(self, context: Context, settings: Settings, manifest: Manifest) -> Any:
        raise NotImplementedError

    def tell(self, context: Context, line: str, **counts: Any) -> None:
        log_counts(self, context, line, counts)


def batch_of(context: Context) -> Manifest:
    found = context["ti"].xcom_pull(task_ids=DRAIN, key="manifest")
    if found is None:
        raise StagingError(f"{DRAIN} has left no manifest in this run: run or clear {DRAIN} first")
    return Manifest.from_dict(found)


def run_url(context: Context) -> str:
    run = context["dag_run"]
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{run.dag_id}/runs/{quote(run.run_id, safe=':+')}"


def age_seconds(milliseconds: int | None) -> float | None:
    """Of a Kafka timestamp, in seconds."""
    return None if milliseconds is None else round(time.time() - milliseconds / 1000, 1)


def log_counts(operator: BaseOperator, context: Context, line: str, counts: Mapping[str, Any]) -> None:
    operator.log.info("%s: %s", line, ", ".join(f"{name} {value}" for name, value in counts.items() if name != "batch"))
    context["ti"].xcom_push(key="counts", value=dict(counts))
