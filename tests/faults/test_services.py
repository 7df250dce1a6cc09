"""What a run needs beside the broker stops, or everything is killed at once; and it comes back."""

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
    scene: FaultScenario, stricken: FaultStack, part: str, point: str, task: str
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point)
    shutil.rmtree(stricken.model_cache, ignore_errors=True)
    stricken.stop(part)
    scene.breakpoint.go_on()
    # However long the service takes to start, the second try waits for it.
    scene.breakpoint.set(point)
    scene.breakpoint.wait()
    stricken.start(part)
    scene.breakpoint.go_on()
    tasks = scene.finish(run_id)
    assert (tasks[task]["state"], tasks[task]["try_number"] > 1) == ("success", True)
    assert "ModelStoreError" in scene.error(run_id, task, 1)
    scene.check()


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_unreachable_mail_server_delays_only_the_report(
    scene: FaultScenario, stricken: FaultStack, ending: str
) -> None:
    scene.send()
    run_id, _ = scene.stop_at("mail")
    getattr(stricken, ending)("mail")
    scene.breakpoint.go_on()
    tasks = scene.finish(run_id, "failed")
    assert (tasks["publish"]["state"], tasks["published"]["state"], tasks["email"]["state"]) == (
        "success", "success", "failed",
    )  # fmt: skip
    assert "takes no mail" in scene.error(run_id, "email")
    stricken.start("mail")
    scene.check()


def test_pending_report_is_mailed_although_plan_fails(scene: FaultScenario, stricken: FaultStack) -> None:
    scene.send()
    run_id, _ = scene.stop_at("mail")
    stricken.stop("mail")
    scene.breakpoint.go_on()
    scene.finish(run_id, "failed")
    stricken.start("mail")
    stood = scene.group.committed()
    scene.group.forget()
    tasks = scene.tasks(scene.run("failed"))
    assert {name: tasks[name]["state"] for name in ("plan", "reports", "email", "catch_up")} == {
        "plan": "failed", "reports": "success", "email": "success", "catch_up": "upstream_failed",
    }  # fmt: skip
    assert tasks["reports"]["try_number"] == 1
    assert len(scene.mailed()) == 1
    stricken.set_offsets(stood)
    scene.check()


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize(("point", "times"), [("predict", 1), ("offsets sent", 2)])
def test_short_outage_of_airflows_database_loses_no_payment(
    scene: FaultScenario, stricken: FaultStack, point: str, times: int, ending: str
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point, times)
    getattr(stricken, ending)("postgres")
    scene.breakpoint.go_on()
    wait_until(scene.is_without_answer, "Airflow answers without its database", 30)
    stricken.start("postgres")
    # The scheduler may die of it, some time later.
    scene.finish(run_id, None, restart=True)
    scene.check()


@pytest.mark.parametrize(("point", "times"), [("drained", 1), ("offsets sent", 2), ("committed", 3), ("mail", 1)])
def test_killed_scheduler_and_tasks_lose_no_payment(
    scene: FaultScenario, stricken: FaultStack, point: str, times: int
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point, times)
    stricken.kill("scheduler")
    stricken.start("scheduler")
    # Whether Airflow tries the email again, which has no retries, depends on what finds out first.
    scene.finish(run_id, None if point == "mail" else "success")
    scene.check()


@pytest.mark.parametrize(("point", "task"), [("predict", "predict"), ("offsets sent", "publish"), ("mail", "email")])
def test_task_that_outlives_its_scheduler_is_not_repeated(
    scene: FaultScenario, stricken: FaultStack, point: str, task: str
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point)
    psutil.Process(stricken.pid("scheduler")).kill()
    wait_until(lambda: "scheduler" in stricken.dead_parts(), "the scheduler lives on", 30)
    scene.breakpoint.go_on()
    scene.await_task(run_id, task, ("success",))
    stricken.recover()
    assert scene.finish(run_id)[task]["try_number"] == 1
    scene.check()


@pytest.mark.parametrize(("point", "times"), [("predict", 1), ("before transaction", 2), ("mail", 1)])
def test_kill_of_everything_at_once_loses_no_payment(
    scene: FaultScenario, stricken: FaultStack, point: str, times: int
) -> None:
    scene.send()
    run_id, _ = scene.stop_at(point, times)
    scene.group.await_no_open_transaction(OUTPUT, DEAD_LETTERS)
    stricken.kill_everything()
    stricken.recover()
    scene.finish(run_id, None)
    scene.check()
