"""Two attempts at once: one that resumes after its retry, or one of a second Airflow with the same group."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.support.breakpoint import frozen
from tests.support.commands import AirflowInTurn, second_airflow
from tests.support.fault_scenario import FENCED, FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import DAG
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("point", "times"), [("before transaction", 2), ("produced", 1), ("offsets sent", 2)])
def test_publish_that_resumes_after_its_retry_changes_nothing(scenario: FaultScenario, point: str, times: int) -> None:
    scenario.send()
    run_id, pid = scenario.stop_at(point, times)
    with frozen(psutil.Process(pid)) as wake:
        tasks = scenario.finish(run_id)
        assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("success", 2)
        arrived = scenario.arrived()
        wake()
    wait_until(lambda: FENCED in scenario.error(run_id, "publish", 1), "it does not say why it lost")
    assert scenario.arrived() == arrived
    scenario.check()


@pytest.fixture
def short_time_limit(fault_stack: FaultStack) -> Iterator[None]:
    """A time limit that a frozen attempt exceeds before it resumes."""
    fault_stack.change(FRAUD_MAX_SECONDS="5")
    yield
    fault_stack.change()


@pytest.mark.usefixtures("short_time_limit")
def test_predict_that_resumes_after_publish_keeps_the_report_complete(
    scenario: FaultScenario, fault_stack: FaultStack
) -> None:
    scenario.send()
    run_id, pid = scenario.stop_at("chunk scored", 2)
    fault_stack.stop("mail")
    try:
        with frozen(psutil.Process(pid)) as wake:
            tasks = scenario.finish(run_id, "failed")
            assert {name: tasks[name]["state"] for name in ("predict", "publish", "email")} == {
                "predict": "success", "publish": "success", "email": "failed",
            }  # fmt: skip
            assert tasks["predict"]["try_number"] == 2
            wake()
    finally:
        fault_stack.start("mail")
    told = "offsets are left for the next run: scoring ended"
    wait_until(lambda: told in scenario.error(run_id, "predict", 1), "it was not out of time")
    scenario.check()


@pytest.fixture(scope="session")
def second(fault_stack: FaultStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowInTurn]:
    with AirflowInTurn(second_airflow(fault_stack.env, tmp_path_factory.mktemp("second"))) as command:
        yield command


@pytest.fixture
def second_run(second: AirflowInTurn) -> Callable[[], str]:
    return lambda: second("dags", "test", DAG)


@pytest.mark.parametrize(("point", "times"), [("before transaction", 1), ("offsets sent", 2), ("produced", 3)])
def test_older_of_two_publishes_of_the_same_payments_is_fenced(
    scenario: FaultScenario, second_run: Callable[[], str], point: str, times: int
) -> None:
    scenario.send()
    run_id, process = scenario.stop_at(point, times)
    second_run()
    os.kill(process, signal.SIGCONT)
    scenario.finish(run_id)
    assert FENCED in scenario.error(run_id, "publish", 1)
    outcomes = scenario.pipeline.counts(run_id, "publish")["partitions"].values()
    assert set(outcomes) <= {"published by another batch", "already published"}
    assert list(outcomes).count("published by another batch") == 4 - times
    scenario.check()


def test_run_skips_payments_that_another_run_published(scenario: FaultScenario, second_run: Callable[[], str]) -> None:
    scenario.send()
    run_id, process = scenario.stop_at("predict")
    second_run()
    os.kill(process, signal.SIGCONT)
    scenario.finish(run_id)
    assert set(scenario.pipeline.counts(run_id, "publish")["partitions"].values()) == {"published by another batch"}
    scenario.check()


def test_superseded_run_fails_with_the_reason(scenario: FaultScenario, second_run: Callable[[], str]) -> None:
    scenario.send()
    run_id, process = scenario.stop_at("predict")
    scenario.send(rough=False)
    second_run()
    os.kill(process, signal.SIGCONT)
    tasks = scenario.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["publish"]["try_number"]) == ("failed", 1)
    error = scenario.error(run_id, "publish")
    assert "OffsetsChangedError" in error
    assert "no commit of this batch is known. The next run starts at the committed offset" in error
    scenario.check()
