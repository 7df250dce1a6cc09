"""Write the task graph of score_payments as JSON: `python -m benchmarks.shape FILE`.

benchmarks/dags makes a DAG of it that has the same shape and does nothing.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.sdk import DAG

FILE = "benchmark_shape.json"
ROOT = Path(__file__).parents[1]


def shape(dag: DAG) -> list[dict[str, Any]]:
    """Return the tasks with what the empty DAG needs of them."""
    return [
        {
            "task_id": task.task_id,
            "kind": _kind(task),
            "mapped": task.is_mapped,
            "trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
            "downstream": sorted(task.downstream_task_ids),
        }
        for task in sorted(dag.tasks, key=lambda task: task.task_id)
    ]


def _kind(task: Any) -> str:
    """Return the kind of a task. Airflow runs no process for an EmptyOperator, so only that is replaced by one."""
    kind = task.operator_class if task.is_mapped else type(task)
    return "branch" if issubclass(kind, BranchMixIn) else "task"


def load(file: Path, name: str) -> DAG:
    """Return the DAG that the `@dag` function of this name in a file makes."""
    sys.path[:0] = [str(ROOT / "plugins")] if str(ROOT / "plugins") not in sys.path else []
    spec = importlib.util.spec_from_file_location(f"benchmarked_{name}", file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: DAG = getattr(module, name)()
    return made


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(
        json.dumps(shape(load(ROOT / "dags" / "score_payments.py", "score_payments")), indent=1)
    )
