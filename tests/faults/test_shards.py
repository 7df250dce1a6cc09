"""The number of shards changes while payments arrive, and a shard is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.soak.producer import SteadyProducer
from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import DAG


@pytest.fixture(scope="module", autouse=True)
def _one_shard_again(fault_stack: FaultStack) -> Iterator[None]:
    """Set the number of shards back to one after each test."""
    yield
    fault_stack.change()


def _tries(scenario: FaultScenario, run_id: str, task: str) -> list[int]:
    """Return the try number of each successful mapped instance."""
    found = scenario.api.request("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return [one["try_number"] for one in found if one["task_id"] == task and one["state"] == "success"]


def test_changed_number_of_shards_loses_no_payment(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    producer = SteadyProducer(fault_stack.bootstrap_servers, rate=50, seed=1)
    producer.start()
    try:
        for shards in (1, 2, 3, 1):
            fault_stack.change(FRAUD_SHARDS=str(shards))
            scenario.send(rough=False)
            run_id = scenario.run()
            for task in ("drain", "predict", "publish"):
                assert len(_tries(scenario, run_id, task)) == shards, task
    finally:
        producer.end()
    assert (producer.sent > 0, producer.ended_by) == (True, "")
    scenario.check()


@pytest.mark.parametrize(
    ("point", "task"),
    [("drained", "drain"), ("predicted", "predict"), ("offsets sent", "publish")],
)
def test_killed_shard_completes_in_its_second_try(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, task: str
) -> None:
    fault_stack.change(FRAUD_SHARDS="2")
    scenario.send()
    run_id, process = scenario.stop_at(point)
    os.kill(process, signal.SIGKILL)
    scenario.finish(run_id)
    assert sorted(_tries(scenario, run_id, task)) == [1, 2]
    scenario.check()


def test_changed_number_of_shards_during_publish_loses_no_payment(
    scenario: FaultScenario, fault_stack: FaultStack
) -> None:
    """The scheduler is killed with its tasks and started with the new number."""
    fault_stack.change(FRAUD_SHARDS="3")
    scenario.send()
    run_id, process = scenario.stop_at("offsets sent")
    os.kill(process, signal.SIGKILL)
    fault_stack.kill("scheduler")
    fault_stack.change(FRAUD_SHARDS="1")
    scenario.finish(run_id, None)
    scenario.check()
