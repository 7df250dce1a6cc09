"""Read and change the hold on a model, which is stored in two Airflow Variables, where a person can see them.

One holds the model, the other the DAG run that changed the hold last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from airflow.sdk import Context, Variable
from airflow.sdk.bases.xcom import BaseXCom

from include.errors import ModelError, RunConfigurationError
from include.models.hold_change import HOLD_CHANGE_VARIABLE, HoldChange
from include.models.model_run import ModelRun
from include.models.selection import HOLD_REMEDY, HOLD_VARIABLE, Hold, ModelChoice

log = logging.getLogger(__name__)


def current_hold() -> Hold | None:
    """Return the hold, or None if no model is held. Raise SettingError if its Variable cannot be parsed."""
    stored = Variable.get(HOLD_VARIABLE, default=None)
    return Hold.from_json(stored) if stored else None


@contextmanager
def mention_hold(run: ModelRun) -> Iterator[None]:
    """Add to a ModelError that the model run is held, if it is, and how to end the hold."""
    try:
        yield
    except ModelError as error:
        hold = current_hold()
        if hold is None or hold.run_id != run.run_id:
            raise
        raise type(error)(f"{error}. {HOLD_REMEDY}") from error


def record_earlier_change(context: Context) -> None:
    """Record this DAG run as the last to change the hold if no run is recorded and an earlier try of it did so.

    Such a try ran in a version that recorded no changes. Call this before the model is resolved, which can fail: only
    the first try after it can see that an earlier one succeeded.
    """
    if not Variable.get(HOLD_CHANGE_VARIABLE, default=None) and _has_resolved_before(context):
        dag_run = context["dag_run"]
        last = _last_change()
        if last is None or not last.supersedes(dag_run.run_id, dag_run.run_after):
            _record_change(HoldChange(dag_run.run_id, dag_run.run_after.isoformat()))


def _has_resolved_before(context: Context) -> bool:
    """Return whether an earlier try of this task has pushed its model run, which it does after changing the hold."""
    # Before a try executes, Airflow 3.3.2 (task_runner) deletes the XComs of earlier tries and keeps their keys.
    from_server = context["ti"]._ti_context_from_server  # type: ignore[attr-defined]  # noqa: SLF001
    return from_server is not None and BaseXCom.XCOM_RETURN_KEY in (from_server.xcom_keys_to_clear or [])


def change_hold(context: Context, choice: ModelChoice, run: ModelRun) -> None:
    """Set or end the hold as this DAG run requests, once, unless a newer run has changed it.

    Raise RunConfigurationError if a newer run has changed it and this run was not cleared: the user who triggered this
    run expects a hold.
    """
    dag_run = context["dag_run"]
    last = _last_change()
    if last is not None and last.supersedes(dag_run.run_id, dag_run.run_after):
        changer = f"{last.dag_run or 'another run'}, triggered at {last.triggered}"
        if last.dag_run == dag_run.run_id or dag_run.clear_number:
            log.warning("the hold is unchanged: %s, changed it last. Trigger a new run to change it", changer)
            return
        raise RunConfigurationError(
            f"keep=true was not applied: {changer}, after this run was triggered, changed the hold. Trigger a new run "
            "to change it"
        )
    if choice.ends_hold:
        if Variable.get(HOLD_VARIABLE, default=None):
            Variable.delete(HOLD_VARIABLE)
        log.info("the hold on a model has ended")
    else:
        hold = Hold(
            run_id=run.run_id,
            asked=run.asked,
            reason=choice.reason,
            who=triggered_by(context),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            model=run.pinned,
        )
        Variable.set(HOLD_VARIABLE, hold.to_json(), description="The model run that scores until the hold is ended")
        log.info("model run %s is held from now on", run.run_id)
    # Write this last: if the try dies in between, its retry writes both again.
    _record_change(HoldChange(dag_run.run_id, dag_run.run_after.isoformat()))


def _record_change(change: HoldChange) -> None:
    Variable.set(HOLD_CHANGE_VARIABLE, change.to_json(), description="The run that set or ended a hold last")


def triggered_by(context: Context) -> str:
    """Return the name of the user who triggered this DAG run, or "unknown"."""
    return context["dag_run"].triggering_user_name or "unknown"


def _last_change() -> HoldChange | None:
    if stored := Variable.get(HOLD_CHANGE_VARIABLE, default=None):
        return HoldChange.from_json(stored)
    # A version that recorded no changes has set this hold.
    hold = current_hold()
    return HoldChange("", hold.since) if hold else None
