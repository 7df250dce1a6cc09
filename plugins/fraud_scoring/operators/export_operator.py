"""The task of the DAG export_confirmed."""

from __future__ import annotations

from airflow.sdk import BaseOperator, Context

from fraud_scoring.confirmed_bucket import export_confirmed
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.batch_operator import log_counts


class ExportConfirmedOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        with plain_failures():
            place, files = export_confirmed()
        for file in files:
            self.log.info("%s: payments %s", file.file, file.payments)
        counts = {"files": len(files), "payments": sum(file.payments for file in files)}
        log_counts(self, context, place if files else f"nothing to export to {place}", counts)
