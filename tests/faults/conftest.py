"""Faults on a stack of their own, one after the other, with the same topics and group.

Each case looks at the offsets that were produced while it ran. FRAUD_FAULT_STACK=<home> keeps and reuses the stack.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack, open_fault_stack
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
def fault_stack(fault_home: Path) -> Iterator[FaultStack]:
    with open_fault_stack(fault_home) as stack:
        yield stack


@pytest.fixture(scope="session")
def fault_models(fault_stack: FaultStack) -> Iterator[TwoModels]:
    with two_models(fault_stack) as made:
        yield made


@pytest.fixture(scope="session")
def _pipeline(fault_stack: FaultStack, fault_models: TwoModels) -> Pipeline:
    made = Pipeline(fault_stack, fault_models)
    made.api.wait_for_dag(DAG)
    made.api.pause(DAG, False)
    return made


@pytest.fixture
def scenario(fault_stack: FaultStack, _pipeline: Pipeline) -> Iterator[FaultScenario]:
    """A scenario with all services up, no waiting payments and no pending reports."""
    _make_good(fault_stack, _pipeline)
    yield FaultScenario(fault_stack, _pipeline)
    _pipeline.breakpoint.clear()


def _make_good(stack: FaultStack, pipeline: Pipeline) -> None:
    """Repair the stack, so that a failed case does not fail the next ones."""
    stack.recover()
    pipeline.breakpoint.clear()
    for run in pipeline.active():
        pipeline.api.wait_for_run(DAG, run["dag_run_id"])
    scenario = FaultScenario(stack, pipeline)
    if not scenario.is_at_rest():
        scenario.run(None)
    if not scenario.is_at_rest():
        stack.set_offsets(scenario.group.ends())
        stack.give_up_reports()
    if scenario.start.keys() != scenario.group.ends().keys():
        # A new stack's: nothing can be lost or moved of a group that has never committed.
        scenario.send()
        scenario.process_backlog()
    # Operators are mailed twice an hour at most for each task and alarm: the mails of earlier cases do not count.
    shutil.rmtree(stack.staging / "incidents", ignore_errors=True)
