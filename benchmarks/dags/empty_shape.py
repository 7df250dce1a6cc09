"""
### Nothing, in the shape of score_payments

A run shows what Airflow itself needs for that shape: the same tasks in the same order, each a process that does
nothing. The run configuration `skipped` names the tasks that a measured run skipped.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.sdk import BaseOperator, Context, XComArg, dag

# Written from the DAG when the benchmarks' stack starts.
SHAPE = json.loads((Path(os.environ["AIRFLOW_HOME"]) / "benchmark_shape.json").read_text())


class Nothing(BaseOperator):
    """Do nothing."""

    def __init__(self, *, shard: int = 0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.shard = shard

    def execute(self, context: Context) -> None:
        """Do nothing."""


class Branch(BaseOperator, BranchMixIn):
    """Skip the tasks that the measured run skipped."""

    def execute(self, context: Context) -> list[int]:
        """Skip the tasks named by the run's configuration. The first branch returns the numbers of the shards."""
        skipped = (context["dag_run"].conf or {}).get("skipped", [])
        self.do_branch(context, [name for name in self.downstream_task_ids if name not in skipped])
        # Of the first branch: what mapped tasks are mapped over.
        return list(range(int(os.environ.get("FRAUD_SHARDS") or 1)))


KINDS = {"branch": Branch, "task": Nothing}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
    doc_md=__doc__,
    tags=["benchmark"],
)
def empty_shape() -> None:
    """Define the empty DAG."""
    tasks: dict[str, Any] = {}
    for one in SHAPE:
        if not one["mapped"]:
            tasks[one["task_id"]] = KINDS[one["kind"]](task_id=one["task_id"], trigger_rule=one["trigger_rule"])
    (first,) = tasks.keys() - {name for one in SHAPE for name in one["downstream"]}
    for one in SHAPE:
        if one["mapped"]:
            operator = Nothing.partial(task_id=one["task_id"], trigger_rule=one["trigger_rule"])
            tasks[one["task_id"]] = operator.expand(shard=XComArg(tasks[first]))
    for one in SHAPE:
        for name in one["downstream"]:
            tasks[one["task_id"]] >> tasks[name]


empty_shape()
