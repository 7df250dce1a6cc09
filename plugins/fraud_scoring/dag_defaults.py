"""What the four DAGs have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

# The SDK has no other place for it (Airflow 3.3.2).
from airflow.sdk.api.datamodels._generated import DagRunType

from fraud_scoring.incidents import IncidentNotifier, close_incident


def dag_defaults(notifier: IncidentNotifier, **of_tasks: Any) -> dict[str, Any]:
    """Return the arguments that each DAG gives `@dag`; `of_tasks` are its own defaults for its tasks."""
    return {
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
        "max_active_runs": 1,
        # A backfill starts ten runs at once, past max_active_runs, for intervals that mean nothing here: offsets say
        # what there is to do. The runs would fence each other.
        "allowed_run_types": frozenset(DagRunType) - {DagRunType("backfill")},
        # A task's own callback names the cause of its failure; this one reports tasks and runs that were killed.
        "on_failure_callback": notifier,
        "default_args": {
            "owner": "fraud",
            "retries": 2,
            "on_failure_callback": notifier,
            "on_success_callback": close_incident,
            **of_tasks,
        },
    }
