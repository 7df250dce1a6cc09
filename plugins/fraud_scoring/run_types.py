"""Define the run types that the DAGs allow."""

from __future__ import annotations

# The SDK has no other place for it (Airflow 3.3.2).
from airflow.sdk.api.datamodels._generated import DagRunType

# A backfill starts ten runs at once, past max_active_runs, for intervals that mean nothing here: offsets say what there
# is to do. The runs would fence each other.
ALL_BUT_BACKFILL = frozenset(DagRunType) - {DagRunType("backfill")}
