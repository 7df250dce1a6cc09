"""The arguments that all four DAGs share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

# Airflow 3.3.2 has no public import of it.
from airflow.sdk.api.datamodels._generated import DagRunType

from fraud_scoring.incidents import IncidentNotifier, close_incident


def dag_defaults(notifier: IncidentNotifier, **task_defaults: Any) -> dict[str, Any]:
    """Return the arguments that each DAG gives `@dag`; `task_defaults` are added to its `default_args`."""
    return {
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
        "max_active_runs": 1,
        # A backfill starts ten runs at once in spite of max_active_runs, and they would fence each other. Its data
        # intervals mean nothing here: the offsets define the work.
        "allowed_run_types": frozenset(DagRunType) - {DagRunType("backfill")},
        # The task's own callback mails the cause of its failure; this one mails about killed tasks and runs.
        "on_failure_callback": notifier,
        "default_args": {
            "owner": "fraud",
            "retries": 2,
            "on_failure_callback": notifier,
            "on_success_callback": close_incident,
            **task_defaults,
        },
    }
