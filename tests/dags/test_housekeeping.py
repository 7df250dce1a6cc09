from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag() -> Any:
    sys.path.insert(0, str(ROOT / "dags"))
    try:
        import housekeeping

        return housekeeping.housekeeping()
    finally:
        sys.path.remove(str(ROOT / "dags"))


def test_dag_runs_once_a_day(dag: Any):
    assert dag.dag_id == "housekeeping"
    assert dag.timetable.expression == "17 3 * * *"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert "FRAUD_LOG_DAYS" in dag.doc_md


def test_dag_is_paused_as_airflow_is_configured(dag: Any):
    """It deletes other DAGs' logs, so a person who has read that unpauses it."""
    assert dag.is_paused_upon_creation is None


def test_tasks_are_independent(dag: Any):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "trim_staging": set(),
        "trim_models": set(),
        "trim_logs": set(),
    }


def test_failures_are_mailed_and_success_ends_incidents(dag: Any):
    from fraud_scoring.incidents import IncidentNotifier, close_incident

    assert isinstance(dag.on_failure_callback, IncidentNotifier)
    for task in dag.tasks:
        assert isinstance(task.on_failure_callback[0], IncidentNotifier)
        assert task.on_success_callback == [close_incident]
        assert (task.retries, task.execution_timeout, task.owner) == (2, timedelta(hours=1), "fraud")
