"""Faults of the ledger: its recorder is killed and frozen, its database goes away."""

from __future__ import annotations

from datetime import UTC, datetime

import psutil

from tests.soak.context import Field, NoEffectError
from tests.soak.registry import kind
from tests.support.breakpoint import frozen
from tests.support.fault_scenario import patiently
from tests.support.ledger_scene import TASK
from tests.support.waiting import wait_until

_POINTS = ("record", "ledger transaction", "rows written", "recorded")


def _hold(field: Field, point: str) -> tuple[str, psutil.Process]:
    """A recorder that somebody triggered; the run and the process."""
    field.keep_running()
    _, pid = field.ledger.stop_at(point)
    held = [run["dag_run_id"] for run in patiently(field.ledger.active) if run["state"] == "running"]
    if len(held) != 1:
        raise NoEffectError(f"a recorder stands at {point!r}, but these runs are at work: {held}")
    return str(held[0]), psutil.Process(pid)


@kind("kill: recorder")
def _killed(field: Field) -> str:
    point = field.random.choice(_POINTS)
    run_id, process = _hold(field, point)
    field.kill(process)
    field.ledger.await_failed_try(run_id)
    return f"at {point!r} its process was killed; a try of {TASK} failed in {run_id}"


@kind("frozen recorder")
def _frozen(field: Field) -> str:
    point = field.random.choice(_POINTS[1:])
    run_id, process = _hold(field, point)
    with frozen(process) as wake:
        wait_until(lambda: field.ledger.tasks(run_id)[TASK]["try_number"] > 1, "no other try", 90)
        wait_until(lambda: field.ledger.tasks(run_id)[TASK]["state"] == "success", "the other try does not end", 90)
        wake()
    return f"frozen at {point!r} until another try of {run_id} was done"


@kind("ledger stopped")
def _stopped(field: Field) -> str:
    """Meanwhile a batch is scored and its report is mailed."""
    field.stack.stop("ledger")
    try:
        run_id = field.ledger.trigger()
        field.ledger.await_failed_try(run_id)
        scored = field.scored_since(datetime.now(UTC))
    finally:
        field.stack.start("ledger")
    return f"a try of {TASK} failed in {run_id}; {scored} was scored and mailed meanwhile"
