"""The whole DAG on the session's stack, with the product's own topics and group. Each test looks at new output only."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.live_stack import LiveStack
from tests.support.pipeline import DAG, Outputs, Pipeline
from tests.support.two_models import TwoModels, two_models


@pytest.fixture(scope="package")
def stack(services: LiveStack) -> Iterator[LiveStack]:
    """Start Airflow on the session's stack, and stop it after this folder's tests: it takes half a core."""
    if "FRAUD_TEST_STACK" in os.environ:
        yield services
        return
    for part in ("airflow", "history"):
        services.start(part)
    yield services
    for part in ("history", "airflow"):
        services.stop(part)


@pytest.fixture(scope="package")
def models(stack: LiveStack) -> Iterator[TwoModels]:
    with two_models(stack) as made:
        yield made


@pytest.fixture(scope="package")
def _pipeline(stack: LiveStack, models: TwoModels) -> Iterator[Pipeline]:
    made = Pipeline(stack, models)
    made.api.wait_for_dag(DAG)
    made.schedule(every_minute=False)
    yield made
    made.schedule(every_minute=True)


@pytest.fixture
def pipeline(_pipeline: Pipeline) -> Iterator[Pipeline]:
    """The pipeline, with the DAG ready to be triggered and no model held."""
    _pipeline.end_hold()
    _pipeline.api.pause(DAG, False)
    yield _pipeline
    _pipeline.breakpoint.clear()
    _pipeline.rest()
    _pipeline.end_hold()


@pytest.fixture
def outputs(stack: LiveStack) -> Outputs:
    return Outputs(stack.bootstrap_servers)
