"""Faults of the ledger: its recorder is killed or frozen, its database is stopped."""

from __future__ import annotations

from datetime import UTC, datetime

import psutil

from tests.soak.context import FaultContext, NoEffectError
from tests.soak.registry import kind
from tests.support.breakpoint import frozen
from tests.support.fault_scenario import with_retries
from tests.support.ledger_scenario import TASK
from tests.support.waiting import wait_until

_POINTS = ("record", "ledger transaction", "rows written", "recorded")


def _hold(context: FaultContext, point: str) -> tuple[str, psutil.Process]:
    """Trigger a recorder and stop it at a breakpoint; return the run and the process."""
    context.keep_running()
    _, pid = context.ledger.stop_at(point)
    held = [run["dag_run_id"] for run in with_retries(context.ledger.active) if run["state"] == "running"]
    if len(held) != 1:
        raise NoEffectError(f"a recorder stands at {point!r}, but these runs are at work: {held}")
    return str(held[0]), psutil.Process(pid)


@kind("kill: recorder")
def _killed(context: FaultContext) -> str:
    point = context.random.choice(_POINTS)
    run_id, process = _hold(context, point)
    context.kill(process)
    context.ledger.await_failed_try(run_id)
    return f"at {point!r} its process was killed; a try of {TASK} failed in {run_id}"


@kind("frozen recorder")
def _frozen(context: FaultContext) -> str:
    point = context.random.choice(_POINTS[1:])
    run_id, process = _hold(context, point)
    with frozen(process) as wake:
        wait_until(lambda: context.ledger.tasks(run_id)[TASK]["try_number"] > 1, "no other try", 90)
        wait_until(lambda: context.ledger.tasks(run_id)[TASK]["state"] == "success", "the other try does not end", 90)
        wake()
    return f"frozen at {point!r} until another try of {run_id} was done"


@kind("ledger stopped")
def _stopped(context: FaultContext) -> str:
    """Stop the database while a batch is scored and its report is mailed."""
    context.stack.stop("ledger")
    try:
        run_id = context.ledger.trigger()
        context.ledger.await_failed_try(run_id)
        scored = context.scored_since(datetime.now(UTC))
    finally:
        context.stack.start("ledger")
    return f"a try of {TASK} failed in {run_id}; {scored} was scored and mailed meanwhile"
