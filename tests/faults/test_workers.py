"""One of two Celery workers is lost with its processes and its disk while a large batch is scored.

It has a stack of its own, in the folder `celery` of the faults' home.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.bench_topics import grow
from benchmarks.payments import produce
from tests.support.celery_stack import CeleryStack, open_celery_stack
from tests.support.fault_scenario import FaultScenario, repeated_payments
from tests.support.mailed import check_mailed
from tests.support.pipeline import DAG, Pipeline
from tests.support.two_models import two_models

PAYMENTS, PARTITIONS = 300_000, 6
# From a worker's death to the next try of its task; docs/configuration.md names what it is made of.
NOTICED_WITHIN = 100


@pytest.fixture(scope="module")
def workers(fault_home: Path) -> Iterator[CeleryStack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAUD_STACK_ENV_FILE", os.devnull)
        with open_celery_stack(fault_home / "celery") as stack:
            yield stack


@pytest.fixture(scope="module")
def _pipeline(workers: CeleryStack) -> Iterator[Pipeline]:
    grow({"bootstrap.servers": workers.bootstrap_servers}, ["topic_1", "topic_2"], PARTITIONS)
    with two_models(workers) as models:
        made = Pipeline(workers, models)
        made.api.wait_for_dag(DAG)
        made.api.pause(DAG, False)
        yield made


@pytest.fixture
def scenario(workers: CeleryStack, _pipeline: Pipeline) -> FaultScenario:
    """A scenario with both workers up and no waiting payments."""
    workers.recover()
    for run in _pipeline.active():
        _pipeline.api.wait_for_run(DAG, run["dag_run_id"])
    FaultScenario(workers, _pipeline).process_backlog()
    return FaultScenario(workers, _pipeline)


def _instances(scenario: FaultScenario, run_id: str, task: str) -> list[dict[str, object]]:
    """Return the task instance of each shard."""
    found = scenario.api.request("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return [one for one in found if one["task_id"] == task]


def test_tasks_inherit_modules_that_their_worker_imported(scenario: FaultScenario, workers: CeleryStack) -> None:
    """Checked at the start of plan, which does not import pandas itself."""
    with workers.stopping_at("plan") as breakpoints:
        run_id = scenario.trigger()
        name = breakpoints.wait()
        task = psutil.Process(breakpoints.process(name))
        assert workers.pid(name) in [parent.pid for parent in task.parents()]
        assert "/pandas/" in Path(f"/proc/{task.pid}/maps").read_text()
    scenario.finish(run_id)
    scenario.await_words(run_id, "plan", "s3://logs/")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("point", "times", "task"),
    [("drained", 1, "drain"), ("predicted", 1, "predict"), ("offsets sent", 2, "publish")],
)
def test_other_worker_completes_the_batch_of_a_lost_worker(
    scenario: FaultScenario, workers: CeleryStack, point: str, times: int, task: str
) -> None:
    produce({"bootstrap.servers": workers.bootstrap_servers}, "topic_1", PAYMENTS, PARTITIONS)
    with workers.stopping_at(point, times) as breakpoints:
        run_id = scenario.trigger()
        lost = breakpoints.wait()
        workers.lose(lost)
    began = time.monotonic()
    if task == "publish":
        assert scenario.group.committed_if_settled() is None, "no kafka transaction was open"

    def tries() -> list[int]:
        return sorted(int(str(one["try_number"])) for one in _instances(scenario, run_id, task))

    while tries() != [1, 2]:
        assert time.monotonic() - began < NOTICED_WITHIN, f"{task} is not tried again: {tries()}"
        time.sleep(0.5)
    noticed = time.monotonic() - began
    scenario.finish(run_id)
    print(f"{lost} lost at {point!r}: next try after {noticed:.0f} s, run done after {time.monotonic() - began:.0f} s")  # noqa: T201
    assert workers.dead_parts() == [lost]
    scenario.await_words(run_id, "plan", "s3://logs/")

    verdict = scenario.verify(scenario.window)
    assert (verdict.is_whole, verdict.count("due"), verdict.count("scored")) == (True, PAYMENTS, PAYMENTS)
    assert repeated_payments(scenario.times()) == []
    frauds, mailed = scenario.frauds(scenario.window), scenario.mailed()
    assert len(mailed) == 1
    check_mailed(frauds, mailed)
    assert scenario.is_at_rest()
