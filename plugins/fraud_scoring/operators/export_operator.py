"""The operator of the DAG export_confirmed."""

from __future__ import annotations

from airflow.sdk import BaseOperator, Context

from fraud_scoring.confirmed_bucket import export_confirmed
from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.operators.batch_operator import log_counts


class ExportConfirmedOperator(BaseOperator):
    """Export new and changed verdicts to FRAUD_CONFIRMED_URL."""

    def execute(self, context: Context) -> None:
        """Export, and log each file with the number of its payments."""
        with translate_permanent_errors():
            url, files = export_confirmed()
        for file in files:
            self.log.info("%s: payments %s", file.file, file.payments)
        counts = {"files": len(files), "payments": sum(file.payments for file in files)}
        log_counts(self, context, url if files else f"nothing to export to {url}", counts)
