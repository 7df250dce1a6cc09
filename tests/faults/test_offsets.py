"""What operators and strangers do to the group's offsets, between runs and during one."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.fault_scenario import FENCED, FaultScenario, doubled
from tests.support.fault_stack import FaultStack
from tests.support.mailed import Window, check_mailed, is_fraud, is_in, place_of
from tests.support.pipeline import alarms
from tests.support.waiting import wait_until

MOVED = 7


def test_offsets_moved_forward_between_runs_skip_payments(scene: FaultScenario) -> None:
    scene.send()
    scene.group.set({number: start + MOVED for number, (start, _) in scene.window.items()})
    scene.check({number: (start + MOVED, end) for number, (start, end) in scene.window.items()})
    _none_of(scene, {number: (start, start + MOVED) for number, start in scene.start.items()})


def test_offsets_moved_back_between_runs_score_payments_again(scene: FaultScenario) -> None:
    """As it was asked for: those, and no other."""
    scene.send()
    scene.check()
    window = scene.window
    back = {number: end - MOVED for number, (_, end) in window.items()}
    scene.group.set(back)
    scene.run()
    before = {number: (start, back[number]) for number, (start, _) in window.items()}
    scene.check_topics(before)
    again = {number: (back[number], end) for number, (_, end) in window.items()}
    verdict = scene.verify(again)
    assert verdict.count("double") == verdict.count("due") > 0
    assert verdict.count("missing") == verdict.count("altered") == verdict.count("nowhere") == 0
    assert set(_times(scene, again).values()) == {2}
    mailed = scene.mailed()
    assert len({one.message_id for one in mailed}) == len(mailed)
    told = Counter(place for one in mailed for place in one.payments)
    assert told == Counter(place_of(one) for one in scene.scored() if is_fraud(one))
    wait_until(lambda: _moved_mails(scene), "operators were not told")


@pytest.mark.parametrize("moved", [pytest.param(-MOVED, id="back"), pytest.param(MOVED, id="forward")])
@pytest.mark.parametrize("point", ["predict", "before fence", "published"])
def test_offsets_moved_during_a_run_stop_that_partition_only(scene: FaultScenario, point: str, moved: int) -> None:
    """The other partitions are published; the next run begins where the operator has put the group."""
    scene.send(frauds=1)
    scene.check()
    first = scene.window
    scene = FaultScenario(scene.stack, scene.pipeline)
    scene.send()
    run_id, _ = scene.stop_at(point)
    start = scene.start[0]
    scene.group.set({0: start + moved})
    scene.breakpoint.go_on()
    tasks = scene.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("failed", 1)
    assert f"group fraud_scoring stands at {start + moved} on topic_1/0" in scene.error(run_id, "publish")
    assert {number: scene.group.committed()[number] for number in (0, 1, 2)} == {
        0: start + moved, 1: scene.window[1][1], 2: scene.window[2][1],
    }  # fmt: skip

    scene.work_off()
    window = scene.window
    scene.check_topics(window | {0: (max(start, start + moved), window[0][1])})
    if moved > 0:
        _none_of(scene, {0: (start, start + moved)})
    else:
        again = scene.verify({0: (start + moved, start)})
        assert again.count("double") == again.count("due") > 0
        assert set(_times(scene, {0: (start + moved, start)}).values()) == {1}
        scene.check_topics({0: (first[0][0], start + moved)})
    assert doubled(scene.times()) == []
    check_mailed(scene.frauds({number: (0, end) for number, (_, end) in window.items()}), scene.mailed())


@pytest.mark.parametrize("point", ["before transaction", "offsets sent"])
def test_offsets_set_fences_a_running_publish(scene: FaultScenario, stricken: FaultStack, point: str) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point)
    start = scene.start[0]
    stricken.set_offsets({0: start + MOVED})
    scene.breakpoint.go_on()
    scene.finish(run_id, "failed")
    if point == "offsets sent":
        assert FENCED in scene.error(run_id, "publish", 1)
    assert f"group fraud_scoring stands at {start + MOVED} on topic_1/0" in scene.error(run_id, "publish")
    scene.check(scene.window | {0: (start + MOVED, scene.window[0][1])})
    _none_of(scene, {0: (start, start + MOVED)})


def test_expired_offsets_do_not_restart_from_the_beginning(scene: FaultScenario, stricken: FaultStack) -> None:
    scene.send()
    stood = scene.group.committed()
    scene.group.forget()
    run_id = scene.trigger()
    tasks = scene.finish(run_id, "failed")
    assert (tasks["plan"]["state"], tasks["plan"]["try_number"]) == ("failed", 1)
    assert "the group's committed offset is gone; it had reached" in scene.error(run_id, "plan")
    assert scene.arrived() == 0
    stricken.set_offsets(stood)
    scene.check()


def test_offsets_that_expire_during_a_run_fail_it(scene: FaultScenario) -> None:
    scene.send()
    run_id, _ = scene.stop_at("predict")
    stood = scene.group.committed()
    scene.group.forget()
    scene.breakpoint.go_on()
    scene.finish(run_id, "failed")
    assert "group fraud_scoring stands at None" in scene.error(run_id, "publish")
    assert scene.arrived() == 0
    scene.group.set(stood)
    scene.check()


def test_foreign_consumer_is_named_and_retry_succeeds_after_it_leaves(scene: FaultScenario) -> None:
    scene.send()
    with scene.group.joined_by_stranger():
        run_id = scene.trigger()
        scene.await_task(run_id, "plan", ("up_for_retry",))
    scene.finish(run_id)
    assert "is STABLE: it is in use by a-stranger on /127.0.0.1. Stop that" in scene.error(run_id, "plan", 1)
    scene.check()


def test_foreign_consumer_that_joins_during_a_run_changes_nothing(scene: FaultScenario) -> None:
    scene.send()
    run_id, _ = scene.stop_at("predict")
    with scene.group.joined_by_stranger():
        scene.breakpoint.go_on()
        scene.finish(run_id)
    scene.check()


def test_foreign_commit_during_a_run_fails_it(scene: FaultScenario, stricken: FaultStack) -> None:
    """It has committed just what this run would have: nobody has scored that."""
    scene.send()
    run_id, _ = scene.stop_at("predict")
    with scene.group.joined_by_stranger(commits=True):
        scene.breakpoint.go_on()
        tasks = scene.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("failed", 1)
    assert "another program committed the offset: no commit of this batch is known" in scene.error(run_id, "publish")
    _is_told_and_put_back(scene, stricken)


def test_foreign_commit_between_runs_is_reported(scene: FaultScenario, stricken: FaultStack) -> None:
    scene.send()
    with scene.group.joined_by_stranger(commits=True):
        pass
    _is_told_and_put_back(scene, stricken)


def _is_told_and_put_back(scene: FaultScenario, stricken: FaultStack) -> None:
    run_id = scene.run()
    assert scene.arrived() == 0
    first, end = scene.window[0]
    told = f"Another program has moved the group's offsets: topic_1/0 from {first} to {end} ({end - first} passed over)"
    assert told in scene.error(run_id, "plan")
    wait_until(lambda: len(_moved_mails(scene)) == 1, "operators were not told once")
    stricken.set_offsets(scene.start)
    scene.check()


def _moved_mails(scene: FaultScenario) -> list[str]:
    return [subject for subject in alarms(scene.inbox) if "The group's offsets were moved" in subject]


def _times(scene: FaultScenario, window: Window) -> Counter[tuple[str, str]]:
    """How often each payment and dead letter of the window has come since the case began."""
    return Counter({place: times for place, times in scene.times().items() if is_in(window, place)})


def _none_of(scene: FaultScenario, window: Window) -> None:
    assert not _times(scene, window)
