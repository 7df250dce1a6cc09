"""Faults of the input topic: expired payments, new partitions, a recreated topic."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import DAG, alarms
from tests.support.waiting import wait_until

EXPIRED = 20


def test_expired_payments_are_counted_and_others_scored(scenario: FaultScenario) -> None:
    scenario.send()
    first = {number: start + EXPIRED for number, (start, _) in scenario.window.items()}
    scenario.group.expire(first)
    run_id = scenario.run()
    lost = EXPIRED * len(first)
    assert scenario.pipeline.counts(run_id, "plan")["lost_to_retention"] == lost
    assert f"{EXPIRED} offsets from {first[0] - EXPIRED} to {first[0]} expired before they were read" in scenario.error(
        run_id, "plan"
    )
    (alarm,) = [one for one in scenario.api.xcom(DAG, run_id, "plan", "alarms") if one["cause"]]
    assert alarm["kind"] == "expired unread"
    assert alarm["sentence"].startswith(
        f"{lost} offsets expired before they were read: topic_1/0 [{first[0] - EXPIRED},"
    )
    mails = partial(alarms, scenario.inbox)
    wait_until(lambda: any("Payments expired unread" in subject for subject in mails()), "operators were not told")
    scenario.check({number: (first[number], end) for number, (_, end) in scenario.window.items()})


@pytest.mark.parametrize("during", [False, True])
def test_new_partitions_are_scored_from_their_first_payment(scenario: FaultScenario, during: bool) -> None:
    """Payments on new partitions are scored from the first one on."""
    scenario.send()
    run_id = scenario.stop_at("predict")[0] if during else scenario.run()
    total = len(scenario.window) + 1
    scenario.group.add_partitions(total)
    scenario.send()
    if during:
        scenario.breakpoint.go_on()
        scenario.finish(run_id)
    window = scenario.window
    assert len(window) == total
    assert window[total - 1][1] > 0
    scenario.check(window)


@pytest.mark.parametrize("during", [False, True])
def test_recreated_topic_is_not_scored_until_offsets_are_set(
    scenario: FaultScenario, fault_stack: FaultStack, during: bool
) -> None:
    """Nothing of the new topic is scored until an operator sets the offsets."""
    if during:
        scenario.send()
        run_id, _ = scenario.stop_at("predict")
    scenario.group.make_topic_again(3)
    scenario.send()
    if during:
        scenario.breakpoint.go_on()
        scenario.finish(run_id, "failed")
        assert "was deleted and recreated" in scenario.error(run_id, "publish")
    run_id = scenario.run("failed")
    tasks = scenario.tasks(run_id)
    assert (tasks["plan"]["state"], tasks["plan"]["try_number"]) == ("failed", 1)
    assert "TopicChangedError: topic_1/0: the topic was deleted and recreated" in scenario.error(run_id, "plan")
    assert scenario.arrived() == 0
    # Places of the new topic are those of the old one: only an empty output can be judged.
    scenario.group.empty("topic_2", "topic_1_dead_letters")
    fault_stack.set_offsets(dict.fromkeys(scenario.group.ends(), 0))
    scenario.check({number: (0, end) for number, end in scenario.group.ends().items()})
