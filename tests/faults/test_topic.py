"""What happens to the input topic itself."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import DAG, alarms
from tests.support.waiting import wait_until

EXPIRED = 20


def test_expired_payments_are_counted_and_others_scored(scene: FaultScenario) -> None:
    scene.send()
    first = {number: start + EXPIRED for number, (start, _) in scene.window.items()}
    scene.group.expire(first)
    run_id = scene.run()
    lost = EXPIRED * len(first)
    assert scene.pipeline.counts(run_id, "plan")["lost_to_retention"] == lost
    assert f"{EXPIRED} offsets from {first[0] - EXPIRED} to {first[0]} expired before they were read" in scene.error(
        run_id, "plan"
    )
    (alarm,) = [one for one in scene.api.xcom(DAG, run_id, "plan", "alarms") if one["cause"]]
    assert alarm["kind"] == "expired unread"
    assert alarm["sentence"].startswith(
        f"{lost} offsets expired before they were read: topic_1/0 [{first[0] - EXPIRED},"
    )
    mails = partial(alarms, scene.inbox)
    wait_until(lambda: any("Payments expired unread" in subject for subject in mails()), "operators were not told")
    scene.check({number: (first[number], end) for number, (_, end) in scene.window.items()})


@pytest.mark.parametrize("during", [False, True])
def test_new_partitions_are_scored_from_their_first_payment(scene: FaultScenario, during: bool) -> None:
    """What comes to the new ones is scored from its first payment on."""
    scene.send()
    run_id = scene.stop_at("predict")[0] if during else scene.run()
    total = len(scene.window) + 1
    scene.group.add_partitions(total)
    scene.send()
    if during:
        scene.breakpoint.go_on()
        scene.finish(run_id)
    window = scene.window
    assert len(window) == total
    assert window[total - 1][1] > 0
    scene.check(window)


@pytest.mark.parametrize("during", [False, True])
def test_recreated_topic_is_not_scored_until_offsets_are_set(
    scene: FaultScenario, stricken: FaultStack, during: bool
) -> None:
    """Nothing of the new topic is scored until somebody says where to begin."""
    if during:
        scene.send()
        run_id, _ = scene.stop_at("predict")
    scene.group.make_topic_again(3)
    scene.send()
    if during:
        scene.breakpoint.go_on()
        scene.finish(run_id, "failed")
        assert "was deleted and made again" in scene.error(run_id, "publish")
    run_id = scene.run("failed")
    tasks = scene.tasks(run_id)
    assert (tasks["plan"]["state"], tasks["plan"]["try_number"]) == ("failed", 1)
    assert "TopicChangedError: topic_1/0: the topic was deleted and made again" in scene.error(run_id, "plan")
    assert scene.arrived() == 0
    # Places of the new topic are those of the old one: only an empty output can be judged.
    scene.group.empty("topic_2", "topic_1_dead_letters")
    stricken.set_offsets(dict.fromkeys(scene.group.ends(), 0))
    scene.check({number: (0, end) for number, end in scene.group.ends().items()})
