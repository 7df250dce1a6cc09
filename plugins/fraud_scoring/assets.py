"""The assets that one DAG updates and another is triggered by.

An event only triggers the DAG; the offsets define its work.
"""

from __future__ import annotations

from airflow.sdk import Asset

SCORED_PAYMENTS = Asset("scored_payments")
