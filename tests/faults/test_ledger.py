"""The recorder is killed or frozen in its Airflow task, and the ledger's database is stopped and started."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support.breakpoint import frozen
from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.ledger_scenario import TASK, LedgerScenario
from tests.support.waiting import wait_until

POINTS = [
    pytest.param("record", 1, id="at its start"),
    pytest.param("ledger transaction", 1, id="before its transaction"),
    pytest.param("rows written", 1, id="inside of it, with the rows written"),
    pytest.param("rows written", 2, id="with one committed, inside of the next"),
    pytest.param("recorded", 1, id="after the last"),
]


@pytest.fixture
def ledger(scenario: FaultScenario, fault_stack: FaultStack) -> LedgerScenario:
    """The recorder's scenario: all earlier batches are recorded, one batch waits."""
    made = LedgerScenario(fault_stack, scenario.breakpoint)
    made.process_backlog(state=None)
    scenario.send()
    scenario.process_backlog()
    return made


@pytest.mark.parametrize(("point", "times"), POINTS)
def test_second_try_completes_killed_recorder(
    scenario: FaultScenario, ledger: LedgerScenario, point: str, times: int
) -> None:
    run_id, process = ledger.stop_at(point, times)
    os.kill(process, signal.SIGKILL)
    tasks = ledger.finish(run_id)
    assert (tasks[TASK]["state"], tasks[TASK]["try_number"]) == ("success", 2)
    ledger.check(scenario.window)


@pytest.mark.parametrize(("point", "times"), POINTS[1:])
def test_second_try_shuts_out_frozen_recorder(
    scenario: FaultScenario, ledger: LedgerScenario, point: str, times: int
) -> None:
    run_id, pid = ledger.stop_at(point, times)
    with frozen(psutil.Process(pid)) as wake:
        wait_until(lambda: ledger.tasks(run_id)[TASK]["try_number"] > 1, "no other try", 120)
        ledger.finish(run_id)
        rows = ledger.rows()
        wake()
    assert ledger.rows() == rows
    ledger.check(scenario.window)


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize(("point", "times"), POINTS[1:3])
def test_recorder_completes_after_database_restart(
    scenario: FaultScenario, ledger: LedgerScenario, fault_stack: FaultStack, point: str, times: int, ending: str
) -> None:
    run_id, _ = ledger.stop_at(point, times)
    getattr(fault_stack, ending)("ledger")
    scenario.breakpoint.go_on()
    ledger.await_failed_try(run_id)
    fault_stack.start("ledger")
    assert ledger.finish(run_id)[TASK]["try_number"] > 1
    ledger.check(scenario.window)


def test_scoring_and_mail_go_on_without_ledger(
    scenario: FaultScenario, ledger: LedgerScenario, fault_stack: FaultStack
) -> None:
    fault_stack.stop("ledger")
    try:
        for _ in range(2):
            scenario.send()
            scenario.run()
        away = ledger.run("failed")
        states = {name: task["state"] for name, task in ledger.tasks(away).items()}
        assert states == {"record_predictions": "failed", "record_batches": "failed"}
        # Three batches with frauds by now, and each was mailed.
        scenario.check()
        assert len(scenario.mailed()) == 3
    finally:
        fault_stack.start("ledger")
    ledger.check(scenario.window)
