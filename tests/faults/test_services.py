"""Services other than the broker are stopped or killed during a run, alone or all at once, and come back."""

from __future__ import annotations

import shutil

import psutil
import pytest

from tests.support.fault_scenario import DEAD_LETTERS, OUTPUT, FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    ("part", "point", "task"),
    [
        ("mlflow", "resolve", "resolve_model"),
        ("s3", "resolve", "resolve_model"),
        ("s3", "predict", "predict"),
        ("mlflow", "predict", "predict"),
    ],
)
def test_run_retries_until_models_are_available(
    scenario: FaultScenario, fault_stack: FaultStack, part: str, point: str, task: str
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    shutil.rmtree(fault_stack.model_cache, ignore_errors=True)
    fault_stack.stop(part)
    scenario.breakpoint.go_on()
    # However long the service takes to start, the second try waits for it.
    scenario.breakpoint.set(point)
    scenario.breakpoint.wait()
    fault_stack.start(part)
    scenario.breakpoint.go_on()
    tasks = scenario.finish(run_id)
    assert (tasks[task]["state"], tasks[task]["try_number"] > 1) == ("success", True)
    assert "ModelStoreError" in scenario.error(run_id, task, 1)
    scenario.check()


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_unreachable_mail_server_delays_only_the_report(
    scenario: FaultScenario, fault_stack: FaultStack, ending: str
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at("mail")
    getattr(fault_stack, ending)("mail")
    scenario.breakpoint.go_on()
    tasks = scenario.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["email"]["state"]) == ("success", "failed")
    assert "accepts no mail" in scenario.error(run_id, "email")
    fault_stack.start("mail")
    scenario.check()


def test_pending_report_is_mailed_although_plan_fails(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at("mail")
    fault_stack.stop("mail")
    scenario.breakpoint.go_on()
    scenario.finish(run_id, "failed")
    fault_stack.start("mail")
    stood = scenario.group.committed()
    scenario.group.forget()
    tasks = scenario.tasks(scenario.run("failed"))
    assert {name: tasks[name]["state"] for name in ("plan", "reports", "email", "catch_up")} == {
        "plan": "failed", "reports": "success", "email": "success", "catch_up": "upstream_failed",
    }  # fmt: skip
    assert tasks["reports"]["try_number"] == 1
    assert len(scenario.mailed()) == 1
    fault_stack.set_offsets(stood)
    scenario.check()


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize(("point", "times"), [("predict", 1), ("offsets sent", 2)])
def test_short_outage_of_airflows_database_loses_no_payment(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, times: int, ending: str
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point, times)
    getattr(fault_stack, ending)("postgres")
    scenario.breakpoint.go_on()
    wait_until(scenario.is_without_answer, "Airflow answers without its database", 30)
    fault_stack.start("postgres")
    # The scheduler may die of it, some time later.
    scenario.finish(run_id, None, restart=True)
    scenario.check()


@pytest.mark.parametrize(("point", "times"), [("drained", 1), ("offsets sent", 2), ("committed", 3), ("mail", 1)])
def test_killed_scheduler_and_tasks_lose_no_payment(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, times: int
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point, times)
    fault_stack.kill("scheduler")
    fault_stack.start("scheduler")
    # Whether Airflow tries the email again, which has no retries, depends on what finds out first.
    scenario.finish(run_id, None if point == "mail" else "success")
    scenario.check()


@pytest.mark.parametrize(("point", "task"), [("predict", "predict"), ("offsets sent", "publish"), ("mail", "email")])
def test_task_that_outlives_its_scheduler_is_not_repeated(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, task: str
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    psutil.Process(fault_stack.pid("scheduler")).kill()
    wait_until(lambda: "scheduler" in fault_stack.dead_parts(), "the scheduler lives on", 30)
    scenario.breakpoint.go_on()
    scenario.await_task(run_id, task, ("success",))
    fault_stack.recover()
    assert scenario.finish(run_id)[task]["try_number"] == 1
    scenario.check()


@pytest.mark.parametrize(("point", "times"), [("predict", 1), ("before transaction", 2), ("mail", 1)])
def test_kill_of_everything_at_once_loses_no_payment(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, times: int
) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at(point, times)
    scenario.group.await_no_open_transaction(OUTPUT, DEAD_LETTERS)
    fault_stack.kill_everything()
    fault_stack.recover()
    scenario.finish(run_id, None)
    scenario.check()
