"""The broker is stopped or killed and comes back during a run.

No Kafka transaction may be open when it is killed: a single broker that is killed between a commit and its markers can
leave a transaction hanging forever, which replicated brokers do not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_scenario import DEAD_LETTERS, OUTPUT, FaultScenario
from tests.support.fault_stack import FaultStack


def _killed(scenario: FaultScenario) -> None:
    scenario.group.await_no_open_transaction(OUTPUT, DEAD_LETTERS)
    scenario.stack.kill("kafka")


def _stopped(scenario: FaultScenario) -> None:
    scenario.stack.stop("kafka")


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
    scenario: FaultScenario, end_broker: Callable[[FaultScenario], None], point: str, times: int
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point, times)
    end_broker(scenario)
    scenario.breakpoint.go_on()
    scenario.stack.start("kafka")
    scenario.finish(run_id)
    scenario.check()


@pytest.mark.parametrize(("point", "task"), [("drain", "drain"), ("before transaction", "publish")])
def test_run_fails_without_broker_and_next_run_completes_the_batch(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, task: str
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point, 1)
    address = fault_stack.bootstrap_servers
    _stopped(scenario)
    scenario.breakpoint.go_on()
    scenario.give_up(run_id, task)
    scenario.await_words(run_id, task, address, 1)
    fault_stack.start("kafka")
    scenario.finish(run_id, "failed")
    scenario.check()
