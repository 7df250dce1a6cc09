"""The number of shards changes between runs while payments go on coming, and a shard dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.soak.producer import SteadyProducer
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import DAG
from tests.support.scene import Scene


@pytest.fixture
def sharded(scene: Scene, stricken: FaultStack) -> Iterator[Scene]:
    yield scene
    scene.breakpoint.clear()
    stricken.change()


def _tries(scene: Scene, run_id: str, task: str) -> list[int]:
    """Of each mapped instance that ran."""
    found = scene.api.request("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return [one["try_number"] for one in found if one["task_id"] == task and one["state"] == "success"]


def test_number_of_shards_changes_while_payments_come(sharded: Scene, stricken: FaultStack) -> None:
    producer = SteadyProducer(stricken.bootstrap_servers, rate=50, seed=1)
    producer.start()
    try:
        for shards in (1, 2, 3, 1):
            stricken.change(FRAUD_SHARDS=str(shards))
            sharded.send(rough=False)
            run_id = sharded.run()
            for task in ("drain", "predict", "publish"):
                assert len(_tries(sharded, run_id, f"shards.{task}" if shards > 1 else task)) == shards, task
    finally:
        producer.end()
    sharded.check()


@pytest.mark.parametrize(
    ("point", "task"),
    [("drained", "shards.drain"), ("predicted", "shards.predict"), ("offsets sent", "shards.publish")],
)
def test_one_shard_is_killed(sharded: Scene, stricken: FaultStack, point: str, task: str) -> None:
    stricken.change(FRAUD_SHARDS="2")
    sharded.send()
    run_id, process = sharded.stop_at(point)
    os.kill(process, signal.SIGKILL)
    sharded.finish(run_id)
    assert sorted(_tries(sharded, run_id, task)) == [1, 2]
    sharded.check()


def test_number_of_shards_changes_while_a_publish_is_open(sharded: Scene, stricken: FaultStack) -> None:
    """The scheduler takes its tasks along when it is started again with the new number."""
    stricken.change(FRAUD_SHARDS="3")
    sharded.send()
    run_id, process = sharded.stop_at("offsets sent")
    os.kill(process, signal.SIGKILL)
    stricken.kill("scheduler")
    stricken.change(FRAUD_SHARDS="1")
    sharded.finish(run_id, None)
    sharded.check()
