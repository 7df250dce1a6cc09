"""SIGKILL from outside to the process of a publish task that the scheduler started, wherever it stands.

`publish` works through its partitions one after the other, so a point "times 2" is passed with one of them committed.
"""

from __future__ import annotations

import pytest

from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, Sent, reported, reports, trans_nums, wait_until

PARTITIONS = 3
# Each partition gets some of both.
AMOUNTS = [GENUINE, FRAUD_FOR_BOTH] * 10


@pytest.mark.parametrize(
    ("point", "times"),
    [
        pytest.param("before transaction", 1, id="before its kafka transaction"),
        pytest.param("offsets sent", 2, id="inside it, with one partition committed"),
        pytest.param("committed", 3, id="between the last commit and the task's end"),
    ],
)
def test_airflow_s_own_second_try_ends_what_was_killed(
    pipeline: Pipeline, outputs: Outputs, inbox: Inbox, point: str, times: int
) -> None:
    run_id, sent = _kill(pipeline, point, times)
    pipeline.finish(run_id)
    publish = pipeline.task(run_id, "publish")
    assert (publish["state"], publish["try_number"]) == ("success", 2)
    assert pipeline.counts(run_id, "publish")["published"] == {1: 20, 2: _without_first(sent), 3: 0}[times]
    _check_once(outputs, inbox, sent)


def test_next_run_ends_what_no_second_try_took_up(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    """One partition was committed, and the kafka transaction of the next one is still open on its offset."""
    run_id, sent = _kill(pipeline, "offsets sent", 2)
    wait_until(lambda: pipeline.task(run_id, "publish")["state"] == "up_for_retry", "the end was not noticed")
    pipeline.api.request("PATCH", f"dags/{DAG}/dagRuns/{run_id}/taskInstances/publish", json={"new_state": "failed"})
    pipeline.finish(run_id, "failed")
    pipeline.finish(pipeline.api.trigger(DAG))
    _check_once(outputs, inbox, sent, mails=2)


def _kill(pipeline: Pipeline, point: str, times: int) -> tuple[str, list[Sent]]:
    """The run goes on without the process."""
    pipeline.settle()
    sent = pipeline.send(payments(*AMOUNTS), spread=PARTITIONS)
    pipeline.breakpoint.set(point, times)
    run_id = pipeline.api.trigger(DAG)
    pipeline.breakpoint.kill()
    return run_id, sent


def _check_once(outputs: Outputs, inbox: Inbox, sent: list[Sent], mails: int = 1) -> None:
    arrived = outputs.scored(sent)
    assert [message.payment for message in arrived] == [
        one.payment.scored(one.payment.values["amt"] == FRAUD_FOR_BOTH) for one in sent
    ]
    frauds = [one for one in sent if one.payment.values["amt"] == FRAUD_FOR_BOTH]
    messages = reports(inbox)
    assert sorted(reported(messages)) == sorted(trans_nums(frauds))
    assert len({message["Message-ID"] for message in messages}) == len(messages) == mails


def _partition(sent: Sent) -> str:
    return sent.source.split("/")[1]


def _without_first(sent: list[Sent]) -> int:
    return sum(_partition(one) != "0" for one in sent)
