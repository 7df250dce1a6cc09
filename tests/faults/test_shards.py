"""The number of shards changes between runs while payments go on coming, and a shard dies."""

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
def _one_shard_again(stricken: FaultStack) -> Iterator[None]:
    """Each test says how many it wants; a change takes a while."""
    yield
    stricken.change()


def _tries(scene: FaultScenario, run_id: str, task: str) -> list[int]:
    """Of each mapped instance that ran."""
    found = scene.api.request("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return [one["try_number"] for one in found if one["task_id"] == task and one["state"] == "success"]


def test_changed_number_of_shards_loses_no_payment(scene: FaultScenario, stricken: FaultStack) -> None:
    producer = SteadyProducer(stricken.bootstrap_servers, rate=50, seed=1)
    producer.start()
    try:
        for shards in (1, 2, 3, 1):
            stricken.change(FRAUD_SHARDS=str(shards))
            scene.send(rough=False)
            run_id = scene.run()
            for task in ("drain", "predict", "publish"):
                assert len(_tries(scene, run_id, task)) == shards, task
    finally:
        producer.end()
    assert (producer.sent > 0, producer.ended_by) == (True, "")
    scene.check()


@pytest.mark.parametrize(
    ("point", "task"),
    [("drained", "drain"), ("predicted", "predict"), ("offsets sent", "publish")],
)
def test_killed_shard_completes_in_its_second_try(
    scene: FaultScenario, stricken: FaultStack, point: str, task: str
) -> None:
    stricken.change(FRAUD_SHARDS="2")
    scene.send()
    run_id, process = scene.stop_at(point)
    os.kill(process, signal.SIGKILL)
    scene.finish(run_id)
    assert sorted(_tries(scene, run_id, task)) == [1, 2]
    scene.check()


def test_changed_number_of_shards_during_publish_loses_no_payment(scene: FaultScenario, stricken: FaultStack) -> None:
    """The scheduler takes its tasks along when it is started again with the new number."""
    stricken.change(FRAUD_SHARDS="3")
    scene.send()
    run_id, process = scene.stop_at("offsets sent")
    os.kill(process, signal.SIGKILL)
    stricken.kill("scheduler")
    stricken.change(FRAUD_SHARDS="1")
    scene.finish(run_id, None)
    scene.check()
