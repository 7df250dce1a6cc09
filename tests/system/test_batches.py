"""The batch record that the DAG stores in the ledger."""

from __future__ import annotations

from typing import Any

from include.ledger.connection import LedgerConnection
from include.ledger.recorded_batches import record_batches
from include.settings import Settings
from include.storage.staging import Storage
from tests.support.ledger import query
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import ANALYSTS, Pipeline, reports
from tests.support.waiting import wait_until

_SQL = (
    "SELECT dag_run_id, run_url, model_run_id, model_asked, chosen_by, chosen_by_whom, reason, scored, frauds, "
    "message_ids, recipients, step_seconds FROM ledger.batches WHERE batch_id = %s"
)


def test_batch_record_has_model_choice_recipients_and_durations(pipeline: Pipeline, inbox: Inbox) -> None:
    conf = {"model": "previous", "keep": True, "reason": "false alarms since noon"}
    chosen, _ = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH), conf)
    (mail,) = reports(inbox)
    held, _ = pipeline.score(payments(GENUINE))
    previous, reason = pipeline.models.previous, "false alarms since noon"

    *row, steps = recorded(pipeline, chosen)
    url = f"/dags/score_payments/runs/{chosen}"
    assert row[0] == chosen
    assert row[1].endswith(url.replace("%3A", ":"))
    assert row[2:7] == [previous, "previous", "run configuration", "admin", reason]
    assert row[7:] == [2, 1, [mail["Message-ID"]], [ANALYSTS]]
    assert list(steps) == ["drain", "email", "predict", "publish", "resolve_model"]
    assert all(0 < taken < 120 for taken in steps.values()), steps

    *row, steps = recorded(pipeline, held)
    assert row[2:7] == [previous, previous, "hold", "admin", reason]
    assert row[7:] == [1, 0, [], []]
    assert "email" not in steps


def recorded(pipeline: Pipeline, run_id: str) -> list[Any]:
    """Wait for the batch record, which the DAG record_predictions may be storing."""
    address = LedgerConnection.from_environment(pipeline.stack.env)
    storage = Storage.open(Settings.from_environment(pipeline.stack.env).staging_url)
    record_batches(storage, address)
    batch = pipeline.counts(run_id, "plan")["batch"]
    (row,) = wait_until(lambda: query(address, _SQL, batch), f"batch {batch} is not recorded")
    return [*row[:-1], dict(sorted(row[-1].items()))]
