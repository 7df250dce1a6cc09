"""Faults strike a stack of their own, one after the other, on the same topics and group.

Each case looks at the offsets that came in while it ran. FRAUD_FAULT_STACK=<home> keeps the stack, and takes it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack, fault_stack
from tests.support.pipeline import DAG, Pipeline
from tests.support.two_models import TwoModels, two_models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def fault_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("FRAUD_FAULT_STACK")
    return Path(given) if given else tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def stricken(fault_home: Path) -> Iterator[FaultStack]:
    with fault_stack(fault_home) as stack:
        yield stack


@pytest.fixture(scope="session")
def stricken_models(stricken: FaultStack) -> Iterator[TwoModels]:
    with two_models(stricken) as made:
        yield made


@pytest.fixture(scope="session")
def _pipeline(stricken: FaultStack, stricken_models: TwoModels) -> Pipeline:
    made = Pipeline(stricken, stricken_models)
    made.api.wait_for_dag(DAG)
    made.api.pause(DAG, False)
    return made


@pytest.fixture
def scene(stricken: FaultStack, _pipeline: Pipeline) -> Iterator[FaultScenario]:
    """With everything up, and nothing waiting or owed."""
    _make_good(stricken, _pipeline)
    yield FaultScenario(stricken, _pipeline)
    _pipeline.breakpoint.clear()


def _make_good(stack: FaultStack, pipeline: Pipeline) -> None:
    """A case that failed must not fail the next ones."""
    stack.recover()
    pipeline.breakpoint.clear()
    for run in pipeline.active():
        pipeline.api.wait_for_run(DAG, run["dag_run_id"])
    scene = FaultScenario(stack, pipeline)
    if not scene.is_at_rest():
        scene.run(None)
    if not scene.is_at_rest():
        stack.set_offsets(scene.group.ends())
        stack.give_up_reports()
    if scene.start.keys() != scene.group.ends().keys():
        # A new stack's: nothing can be lost or moved of a group that has never committed.
        scene.send()
        scene.work_off()
    # Operators are mailed twice an hour at most for each task and alarm: the mails of earlier cases do not count.
    shutil.rmtree(stack.staging / "incidents", ignore_errors=True)
