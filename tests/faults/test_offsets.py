"""Operators and foreign consumers change the group's offsets, between runs and during a run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.fault_scenario import FENCED, FaultScenario, repeated_payments
from tests.support.fault_stack import FaultStack
from tests.support.mailed import Window, check_mailed, is_fraud, is_in, place_of
from tests.support.pipeline import alarms
from tests.support.waiting import wait_until

MOVED = 7


def test_offsets_moved_forward_between_runs_skip_payments(scenario: FaultScenario) -> None:
    scenario.send()
    scenario.group.set({number: start + MOVED for number, (start, _) in scenario.window.items()})
    scenario.check({number: (start + MOVED, end) for number, (start, end) in scenario.window.items()})
    _none_of(scenario, {number: (start, start + MOVED) for number, start in scenario.start.items()})


def test_offsets_moved_back_between_runs_score_payments_again(scenario: FaultScenario) -> None:
    """Only the payments from the new offset on are scored again."""
    scenario.send()
    scenario.check()
    window = scenario.window
    back = {number: end - MOVED for number, (_, end) in window.items()}
    scenario.group.set(back)
    scenario.run()
    before = {number: (start, back[number]) for number, (start, _) in window.items()}
    scenario.check_topics(before)
    again = {number: (back[number], end) for number, (_, end) in window.items()}
    verdict = scenario.verify(again)
    assert verdict.count("double") == verdict.count("due") > 0
    assert verdict.count("missing") == verdict.count("altered") == verdict.count("nowhere") == 0
    assert set(_times(scenario, again).values()) == {2}
    mailed = scenario.mailed()
    assert len({one.message_id for one in mailed}) == len(mailed)
    told = Counter(place for one in mailed for place in one.payments)
    assert told == Counter(place_of(one) for one in scenario.scored() if is_fraud(one))
    wait_until(lambda: _moved_mails(scenario), "operators were not told")


@pytest.mark.parametrize("moved", [pytest.param(-MOVED, id="back"), pytest.param(MOVED, id="forward")])
@pytest.mark.parametrize("point", ["predict", "before fence", "produced"])
def test_offsets_moved_during_a_run_stop_that_partition_only(scenario: FaultScenario, point: str, moved: int) -> None:
    """The other partitions are published; the next run begins at the offsets that the operator set."""
    scenario.send(frauds=1)
    scenario.check()
    first = scenario.window
    scenario = FaultScenario(scenario.stack, scenario.pipeline)
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    start = scenario.start[0]
    scenario.group.set({0: start + moved})
    scenario.breakpoint.go_on()
    tasks = scenario.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("failed", 1)
    assert f"the committed offset of group fraud_scoring on topic_1/0 is {start + moved}" in scenario.error(
        run_id, "publish"
    )
    assert {number: scenario.group.committed()[number] for number in (0, 1, 2)} == {
        0: start + moved, 1: scenario.window[1][1], 2: scenario.window[2][1],
    }  # fmt: skip

    scenario.process_backlog()
    window = scenario.window
    scenario.check_topics(window | {0: (max(start, start + moved), window[0][1])})
    if moved > 0:
        _none_of(scenario, {0: (start, start + moved)})
    else:
        again = scenario.verify({0: (start + moved, start)})
        assert again.count("double") == again.count("due") > 0
        assert set(_times(scenario, {0: (start + moved, start)}).values()) == {1}
        scenario.check_topics({0: (first[0][0], start + moved)})
    assert repeated_payments(scenario.times()) == []
    check_mailed(scenario.frauds({number: (0, end) for number, (_, end) in window.items()}), scenario.mailed())


@pytest.mark.parametrize("point", ["before transaction", "offsets sent"])
def test_offsets_set_fences_a_running_publish(scenario: FaultScenario, fault_stack: FaultStack, point: str) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    start = scenario.start[0]
    fault_stack.set_offsets({0: start + MOVED})
    scenario.breakpoint.go_on()
    scenario.finish(run_id, "failed")
    if point == "offsets sent":
        assert FENCED in scenario.error(run_id, "publish", 1)
    assert f"the committed offset of group fraud_scoring on topic_1/0 is {start + MOVED}" in scenario.error(
        run_id, "publish"
    )
    scenario.check(scenario.window | {0: (start + MOVED, scenario.window[0][1])})
    _none_of(scenario, {0: (start, start + MOVED)})


def test_expired_offsets_do_not_restart_from_the_beginning(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    scenario.send()
    stood = scenario.group.committed()
    scenario.group.forget()
    run_id = scenario.trigger()
    tasks = scenario.finish(run_id, "failed")
    assert (tasks["plan"]["state"], tasks["plan"]["try_number"]) == ("failed", 1)
    assert "the group's committed offset is gone; it had reached" in scenario.error(run_id, "plan")
    assert scenario.arrived() == 0
    fault_stack.set_offsets(stood)
    scenario.check()


def test_offsets_that_expire_during_a_run_fail_it(scenario: FaultScenario) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at("predict")
    stood = scenario.group.committed()
    scenario.group.forget()
    scenario.breakpoint.go_on()
    scenario.finish(run_id, "failed")
    assert "the committed offset of group fraud_scoring on topic_1/0 is gone" in scenario.error(run_id, "publish")
    assert scenario.arrived() == 0
    scenario.group.set(stood)
    scenario.check()


def test_foreign_consumer_is_named_and_retry_succeeds_after_it_leaves(scenario: FaultScenario) -> None:
    scenario.send()
    with scenario.group.joined_by_stranger():
        run_id = scenario.trigger()
        scenario.await_task(run_id, "plan", ("up_for_retry",))
    scenario.finish(run_id)
    assert "is STABLE: it is in use by a-stranger on /127.0.0.1. Stop that" in scenario.error(run_id, "plan", 1)
    scenario.check()


def test_foreign_consumer_that_joins_during_a_run_changes_nothing(scenario: FaultScenario) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at("predict")
    with scenario.group.joined_by_stranger():
        scenario.breakpoint.go_on()
        scenario.finish(run_id)
    scenario.check()


def test_foreign_commit_during_a_run_fails_it(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    """The foreign consumer commits the offsets that this run would have committed, without scoring."""
    scenario.send()
    run_id, _ = scenario.stop_at("predict")
    with scenario.group.joined_by_stranger(commits=True):
        scenario.breakpoint.go_on()
        tasks = scenario.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("failed", 1)
    assert "another program committed the offset: no commit of this batch is known" in scenario.error(run_id, "publish")
    _is_told_and_put_back(scenario, fault_stack)


def test_foreign_commit_between_runs_is_reported(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    scenario.send()
    with scenario.group.joined_by_stranger(commits=True):
        pass
    _is_told_and_put_back(scenario, fault_stack)


def _is_told_and_put_back(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    run_id = scenario.run()
    assert scenario.arrived() == 0
    first, end = scenario.window[0]
    told = f"Another program has moved the group's offsets: topic_1/0 from {first} to {end} ({end - first} skipped)"
    assert told in scenario.error(run_id, "plan")
    wait_until(lambda: len(_moved_mails(scenario)) == 1, "operators were not told once")
    fault_stack.set_offsets(scenario.start)
    scenario.check()


def _moved_mails(scenario: FaultScenario) -> list[str]:
    return [subject for subject in alarms(scenario.inbox) if "The group's offsets were moved" in subject]


def _times(scenario: FaultScenario, window: Window) -> Counter[tuple[str, str]]:
    """Return how often each payment and dead letter of the window came out since the case began."""
    return Counter({place: times for place, times in scenario.times().items() if is_in(window, place)})


def _none_of(scenario: FaultScenario, window: Window) -> None:
    assert not _times(scenario, window)
