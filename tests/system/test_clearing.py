"""Clearing tasks of a successful run."""

from __future__ import annotations

from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import Outputs, Pipeline, reported, reports, trans_nums

STEPS = ("drain", "resolve_model", "predict", "publish", "reports", "email")


def test_cleared_tasks_publish_and_mail_nothing_twice(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    run_id, sent = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH, GENUINE), {"model": "previous"})
    assert reported(reports(inbox)) == trans_nums(sent[1:2])
    staged = outputs.scored(sent)

    for step in STEPS:
        pipeline.clear(run_id, step)
        assert set(pipeline.states(run_id).values()) <= {"success", "skipped"}, step
        assert outputs.scored(sent) == staged, step
    assert set(pipeline.counts(run_id, "publish")["partitions"].values()) == {"already published"}

    # The whole run: it drains what waits now, and goes by the configuration it was given then.
    pipeline.settle()
    more = pipeline.send(payments(FRAUD_FOR_BOTH))
    pipeline.clear(run_id)
    assert pipeline.states(run_id) == dict.fromkeys(pipeline.states(run_id), "success") | {"catch_up": "skipped"}
    (arrived,) = outputs.scored(more)
    assert arrived.headers["model_run_id"] == pipeline.models.previous
    assert outputs.scored(sent) == staged

    # Nothing waits any more: the run has no shard, and Airflow takes its instance away.
    pipeline.clear(run_id, "plan")
    for step in ("publish", "predict", "drain"):
        pipeline.clear(run_id, step)
        assert pipeline.task(run_id, step)["state"] == "removed"
    outputs.scored([*sent, *more])
    assert sorted(reported(reports(inbox))) == sorted(trans_nums([sent[1], *more]))
