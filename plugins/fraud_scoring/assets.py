"""What one DAG makes and another waits for. Its events only wake: what there is to do, offsets say."""

from __future__ import annotations

from airflow.sdk import Asset

SCORED_PAYMENTS = Asset("scored_payments")
