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
        import record_predictions

        return record_predictions.record_predictions()
    finally:
        sys.path.remove(str(ROOT / "dags"))


def test_dag_runs_after_publish_and_every_ten_minutes(dag: Any):
    from fraud_scoring.assets import SCORED_PAYMENTS

    assert dag.dag_id == "record_predictions"
    assert dag.timetable.timetable.expression == "*/10 * * * *"
    assert list(dag.timetable.asset_condition.objects) == [SCORED_PAYMENTS]
    assert SCORED_PAYMENTS.uri == "scored_payments"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert "FRAUD_OUTPUT_DEAD_LETTER_TOPIC" in dag.doc_md


def test_tasks_are_independent(dag: Any):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "record_predictions": set(),
        "record_batches": set(),
    }


def test_failures_and_alarms_are_mailed_and_success_ends_incidents(dag: Any):
    from fraud_scoring.alarm_mails import mail_alarms
    from fraud_scoring.incidents import IncidentNotifier, close_incident

    assert isinstance(dag.on_failure_callback, IncidentNotifier)
    for task in dag.tasks:
        assert isinstance(task.on_failure_callback[0], IncidentNotifier)
        assert "the next run records them" in task.on_failure_callback[0].task_next
        assert task.on_success_callback[0] is close_incident
        assert (task.retries, task.retry_delay, task.owner) == (2, timedelta(seconds=10), "fraud")
        # A backlog is written in many transactions.
        assert task.execution_timeout == timedelta(hours=1)
    # A try that fails may have sent dead letters, which no later try finds again.
    for callbacks in ("on_success_callback", "on_failure_callback", "on_retry_callback"):
        mailed = {task.task_id: mail_alarms in (getattr(task, callbacks) or []) for task in dag.tasks}
        assert mailed == {"record_predictions": True, "record_batches": False}
