"""The operators of the DAG record_predictions. `include/ledger` does the work."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

from airflow.sdk import BaseOperator, Context

from fraud_scoring.airflow_connections import kafka_cluster, ledger, staging
from fraud_scoring.alarm_mails import ALARMS
from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.incident_store import IncidentStore
from fraud_scoring.operators.batch_operator import log_counts
from include.batch.dead_letter_counts import DeadLetterCounts
from include.settings import Settings


class RecordPredictionsOperator(BaseOperator):
    """Record new messages of the output topic in the ledger.

    Push the XCom `alarms`: whether many messages became dead letters. A failed try pushes it as well, because no later
    try sends its dead letters again.
    """

    def execute(self, context: Context) -> None:
        """Record, log the offsets `[start, end)` of each partition, and push the XComs `alarms` and `counts`."""
        from include.ledger.recorder import record

        with translate_permanent_errors():
            settings = Settings.from_environment()
            dead_letters: list[DeadLetterCounts] = []
            try:
                recorded = record(kafka_cluster(), settings, ledger(), dead_letters.append)
            finally:
                context["ti"].xcom_push(key=ALARMS, value=self._alarms(context, settings, dead_letters))
        ranges = [f"{partition}:[{start}, {end})" for partition, (start, end) in recorded.ranges.items()]
        counts = {"messages": recorded.messages, "rows": recorded.rows, "dead_letters": recorded.dead_letters}
        log_counts(self, context, f"{settings.output_topic} {', '.join(ranges) or 'nothing new'}", counts)

    def _alarms(
        self, context: Context, settings: Settings, dead_letters: list[DeadLetterCounts]
    ) -> list[dict[str, Any]]:
        from include.batch.dead_letter_alarm import find_output_dead_letter_alarm

        ti = context["ti"]
        # Each try counts as a batch of its own, because no two tries count the same messages.
        store, counted_as = IncidentStore(settings, ti.dag_id), f"{ti.run_id} {ti.try_number}"
        update_counts = partial(store.update_dead_letter_counts, counted_as)
        recorded = reduce(DeadLetterCounts.plus, dead_letters, DeadLetterCounts())
        alarm = find_output_dead_letter_alarm(settings, recorded, update_counts)
        if alarm is None:
            return []
        if alarm.is_raised:
            self.log.error("%s: %s", alarm.cause, alarm.sentence)
        return [alarm.to_dict()]


class RecordBatchesOperator(BaseOperator):
    """Record batches in the ledger, from the files that score_payments has left in the staging area."""

    def execute(self, context: Context) -> None:
        """Record, and push the XCom `counts`."""
        from include.ledger.recorded_batches import record_batches

        with translate_permanent_errors():
            connection = ledger()
            recorded = record_batches(staging(Settings.from_environment()), connection)
        log_counts(self, context, f"ledger at {connection}", {"batches": recorded.batches, "files": recorded.files})
