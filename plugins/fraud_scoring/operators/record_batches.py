"""The task `record_batches`: what the scoring has left of its batches goes into the ledger."""

from __future__ import annotations

from airflow.sdk import BaseOperator, Context

from fraud_scoring.connections import ledger, staging
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.step import tell
from include.settings import Settings


class RecordBatchesOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        from include.ledger.batches import record_batches

        with plain_failures():
            address = ledger()
            recorded = record_batches(staging(Settings.from_environment()), address)
        tell(self, context, f"ledger at {address}", {"batches": recorded.batches, "files": recorded.files})
