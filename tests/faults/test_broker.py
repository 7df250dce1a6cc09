"""The broker goes and comes back while a run is at work.

Before it is killed, no kafka transaction may be open: a single broker that is killed between a commit and its markers
can leave one hanging for good, which replicated brokers do not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_scenario import DEAD_LETTERS, OUTPUT, FaultScenario
from tests.support.fault_stack import FaultStack


def _killed(scene: FaultScenario) -> None:
    scene.group.await_no_open_transaction(OUTPUT, DEAD_LETTERS)
    scene.stack.kill("kafka")


def _stopped(scene: FaultScenario) -> None:
    scene.stack.stop("kafka")


@pytest.mark.parametrize(
    ("end_broker", "point", "times"),
    [
        pytest.param(_stopped, "drain", 1, id="restarted in drain"),
        pytest.param(_stopped, "predict", 1, id="restarted between drain and publish"),
        pytest.param(_stopped, "before transaction", 2, id="restarted between two partitions"),
        pytest.param(_stopped, "offsets sent", 2, id="restarted inside a kafka transaction"),
        pytest.param(_killed, "drain", 1, id="killed in drain"),
        pytest.param(_killed, "predict", 1, id="killed between drain and publish"),
        pytest.param(_killed, "before transaction", 2, id="killed between two partitions"),
        pytest.param(_killed, "committed", 3, id="killed after the last commit"),
    ],
)
def test_run_or_its_retries_complete_after_broker_failure(
    scene: FaultScenario, end_broker: Callable[[FaultScenario], None], point: str, times: int
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point, times)
    end_broker(scene)
    scene.breakpoint.go_on()
    scene.stack.start("kafka")
    scene.finish(run_id)
    scene.check()


@pytest.mark.parametrize(("point", "task"), [("drain", "drain"), ("before transaction", "publish")])
def test_run_fails_without_broker_and_next_run_completes_the_batch(
    scene: FaultScenario, stricken: FaultStack, point: str, task: str
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point, 1)
    address = stricken.bootstrap_servers
    _stopped(scene)
    scene.breakpoint.go_on()
    scene.give_up(run_id, task)
    scene.await_words(run_id, task, address, 1)
    stricken.start("kafka")
    scene.finish(run_id, "failed")
    scene.check()
