"""The tasks of the DAG record_predictions: what each records stands in `include/ledger`."""

from __future__ import annotations

from airflow.sdk import BaseOperator, Context

from fraud_scoring.connections import kafka_settings, ledger, staging
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.step import tell
from include.settings import Settings


class RecordPredictionsOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        from include.ledger.record import record

        with plain_failures():
            settings = Settings.from_environment()
            recorded = record(kafka_settings(), settings, ledger())
        ranges = ", ".join(f"{at}:[{start}, {end})" for at, (start, end) in recorded.ranges.items()) or "nothing new"
        counts = {"messages": recorded.messages, "rows": recorded.rows, "dead_letters": recorded.dead_letters}
        tell(self, context, f"{settings.output_topic} {ranges}", counts)


class RecordBatchesOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        from include.ledger.batches import record_batches

        with plain_failures():
            address = ledger()
            recorded = record_batches(staging(Settings.from_environment()), address)
        tell(self, context, f"ledger at {address}", {"batches": recorded.batches, "files": recorded.files})
