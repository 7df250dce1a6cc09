"""The tasks of the DAG record_predictions: what each records stands in `include/ledger`."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

from airflow.sdk import BaseOperator, Context

from fraud_scoring.airflow_connections import kafka_cluster, ledger, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import plain_failures
from fraud_scoring.kept_incidents import KeptIncidents
from fraud_scoring.operators.batch_operator import log_counts
from include.batch.dead_letter_counts import DeadLetterCounts
from include.settings import Settings


class RecordPredictionsOperator(BaseOperator):
    """Push the XCom `alarms`: whether many messages became dead letters. A try that fails pushes it as well, because
    no later one sends its dead letters again."""

    def execute(self, context: Context) -> None:
        from include.ledger.recorder import record

        with plain_failures():
            settings = Settings.from_environment()
            counted: list[DeadLetterCounts] = []
            try:
                recorded = record(kafka_cluster(), settings, ledger(), counted.append)
            finally:
                context["ti"].xcom_push(key=ALARMS, value=self._alarms(context, settings, counted))
        ranges = ", ".join(f"{at}:[{start}, {end})" for at, (start, end) in recorded.ranges.items()) or "nothing new"
        counts = {"messages": recorded.messages, "rows": recorded.rows, "dead_letters": recorded.dead_letters}
        log_counts(self, context, f"{settings.output_topic} {ranges}", counts)

    def _alarms(self, context: Context, settings: Settings, counted: list[DeadLetterCounts]) -> list[dict[str, Any]]:
        from include.batch.dead_letter_alarm import find_output_dead_letter_alarm

        ti = context["ti"]
        # No two tries count the same messages.
        count = partial(KeptIncidents(settings, ti.dag_id).count_dead_letters, f"{ti.run_id} {ti.try_number}")
        recorded = reduce(DeadLetterCounts.plus, counted, DeadLetterCounts())
        alarm = find_output_dead_letter_alarm(settings, recorded, count)
        if alarm is None:
            return []
        if alarm.cause:
            self.log.error("%s: %s", alarm.cause, alarm.sentence)
        return [alarm.to_dict()]


class RecordBatchesOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        from include.ledger.recorded_batches import record_batches

        with plain_failures():
            address = ledger()
            recorded = record_batches(staging(Settings.from_environment()), address)
        log_counts(self, context, f"ledger at {address}", {"batches": recorded.batches, "files": recorded.files})
