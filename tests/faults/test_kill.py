"""SIGKILL to the process of a task that the scheduler started, at each point of its work.

`publish` commits its partitions one after the other, so at a point with times 2 one of them is committed.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support.fault_scenario import FaultScenario

# Task, point of it, which time it is passed.
POINTS = [
    pytest.param("plan", "plan", 1, id="plan, at its start"),
    pytest.param("plan", "planned", 1, id="plan, with its ranges fixed"),
    pytest.param("drain", "drain", 1, id="drain, at its start"),
    pytest.param("drain", "chunk staged", 3, id="drain, with some of its payments staged"),
    pytest.param("drain", "drained", 1, id="drain, with its payments staged"),
    pytest.param("resolve_model", "resolve", 1, id="resolve_model"),
    pytest.param("predict", "predict", 1, id="predict, at its start"),
    pytest.param("predict", "chunk scored", 2, id="predict, with some of its predictions staged"),
    pytest.param("predict", "predicted", 1, id="predict, with its predictions staged"),
    pytest.param("publish", "before fence", 1, id="publish, before it shuts out others"),
    pytest.param("publish", "before transaction", 1, id="publish, before its kafka transaction"),
    pytest.param("publish", "chunk published", 2, id="publish, inside it with a part of the payments sent"),
    pytest.param("publish", "produced", 2, id="publish, inside it before the offsets were sent"),
    pytest.param("publish", "offsets sent", 2, id="publish, inside it after the offsets were sent"),
    pytest.param("publish", "committed", 2, id="publish, between two partitions"),
    pytest.param("publish", "committed", 3, id="publish, between the last commit and its end"),
]


@pytest.mark.parametrize(("task", "point", "times"), POINTS)
def test_second_try_completes_a_killed_task(scenario: FaultScenario, task: str, point: str, times: int) -> None:
    scenario.send()
    run_id, process = scenario.stop_at(point, times)
    os.kill(process, signal.SIGKILL)
    tasks = scenario.finish(run_id)
    assert (tasks[task]["state"], tasks[task]["try_number"]) == ("success", 2), scenario.last_words(run_id, task, 2)
    scenario.check()


@pytest.mark.parametrize(("task", "point", "times"), POINTS)
def test_next_run_completes_a_batch_without_retries_left(
    scenario: FaultScenario, task: str, point: str, times: int
) -> None:
    scenario.send()
    run_id, process = scenario.stop_at(point, times)
    os.kill(process, signal.SIGKILL)
    scenario.give_up(run_id, task)
    scenario.finish(run_id, "failed")
    scenario.send(frauds=1, genuine=1, rough=False)
    scenario.check()


@pytest.mark.parametrize(
    ("point", "resent"), [pytest.param("mail", False, id="before the mail"), ("mail accepted", True)]
)
def test_next_run_mails_report_of_killed_email_task(scenario: FaultScenario, point: str, resent: bool) -> None:
    """If the task is killed after the server accepted the mail, the mail is sent again with the same Message-ID."""
    scenario.send()
    run_id, process = scenario.stop_at(point)
    os.kill(process, signal.SIGKILL)
    tasks = scenario.finish(run_id, "failed")
    assert (tasks["email"]["state"], tasks["email"]["try_number"], tasks["publish"]["state"]) == (
        "failed",
        1,
        "success",
    )
    assert len(scenario.mailed()) == resent
    scenario.check(resent=resent)
    if resent:
        first, second = scenario.mailed()
        assert first == second


@pytest.mark.parametrize(
    ("task", "point", "times"),
    [
        ("drain", "drained", 1),
        ("resolve_model", "resolve", 1),
        ("predict", "chunk scored", 2),
        ("publish", "offsets sent", 2),
    ],
)
def test_next_run_completes_batch_whose_tries_were_all_killed(
    scenario: FaultScenario, task: str, point: str, times: int
) -> None:
    scenario.send()
    run_id, process = scenario.stop_at(point, times)
    for _ in range(2):
        os.kill(process, signal.SIGKILL)
        scenario.breakpoint.set(point, 1)
        process = scenario.breakpoint.wait()
    os.kill(process, signal.SIGKILL)
    tasks = scenario.finish(run_id, "failed")
    assert (tasks[task]["state"], tasks[task]["try_number"]) == ("failed", 3)
    scenario.check()


@pytest.mark.parametrize(
    ("point", "task"), [("drained", "drain"), ("offsets sent", "publish"), ("committed", "publish")]
)
def test_task_and_its_supervisor_are_killed_and_the_batch_completes(
    scenario: FaultScenario, point: str, task: str
) -> None:
    """Like a lost machine: Airflow learns of it only from missing heartbeats."""
    scenario.send()
    run_id, process = scenario.stop_at(point)
    for one in (psutil.Process(process).parent(), psutil.Process(process)):
        assert one is not None
        one.kill()
    tasks = scenario.finish(run_id)
    assert (tasks[task]["state"], tasks[task]["try_number"]) == ("success", 2)
    scenario.check()
