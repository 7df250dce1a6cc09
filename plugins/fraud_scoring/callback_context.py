"""Read a failure from the context that Airflow gives a callback of a task, of a DAG or of a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context

from fraud_scoring.run_url import run_url
from include.report.incident import Failure, cause_and_detail


def task_failure(context: Context) -> Failure:
    """Return the failure of a task, from its own `on_failure_callback`."""
    cause, detail = cause_and_detail(context.get("exception"))
    return _failure(context["ti"], cause, detail)


def run_failure(context: Mapping[str, Any]) -> Failure:
    """Return the failure of a DAG run, from the DAG's `on_failure_callback`.

    If Airflow names a task that failed, the failure is that task's.
    """
    cause, detail = cause_and_detail(None)
    if context["reason"] == "timed_out":
        cause, detail = "RunTimedOut", "the run took longer than its dagrun_timeout and was ended"
    ti = context.get("ti")
    if ti is not None:
        return _failure(ti, cause, detail)
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    return Failure("run", cause, detail, dag_id, run_id, run_url(dag_id, run_id), datetime.now(UTC))


def late_run_failure(context: Mapping[str, Any], late_minutes: float) -> Failure:
    """Return a failure for a run that is late, from the context of a deadline's callback, which is plain JSON."""
    dag_run = context["dag_run"]
    dag_id, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
    detail = f"not done {late_minutes:g} minutes after it was queued"
    return Failure("late run", "Late", detail, dag_id, run_id, run_url(dag_id, run_id), datetime.now(UTC))


def map_index(ti: Any) -> int:
    """Return the map index of a task instance, -1 if its task is not mapped."""
    return -1 if ti.map_index is None else int(ti.map_index)


def _failure(ti: Any, cause: str, detail: str) -> Failure:
    return Failure(
        ti.task_id, cause, detail, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number, map_index(ti)
    )
