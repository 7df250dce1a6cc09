"""The hold on a model, and which run may change it. Both are Airflow Variables, where a person sees them."""

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


def held_model() -> Hold | None:
    """Return the hold in force. Raise SettingError where its Variable cannot be read."""
    held = Variable.get(HOLD_VARIABLE, default=None)
    return Hold.from_json(held) if held else None


@contextmanager
def name_the_hold(run: ModelRun) -> Iterator[None]:
    """Add to a ModelError, where the model run is held, that it is, and how the hold is ended."""
    try:
        yield
    except ModelError as error:
        hold = held_model()
        if hold is None or hold.run_id != run.run_id:
            raise
        raise type(error)(f"{error}. {HOLD_REMEDY}") from error


def note_earlier_change(context: Context) -> None:
    """Note this run as the one that changed the hold last, where no run is noted and an earlier try of it did.

    A version that noted no changes ran it. To be called before the model is resolved, which can fail: what shows the
    earlier try is there for one try only.
    """
    if not Variable.get(HOLD_CHANGE_VARIABLE, default=None) and _has_resolved_before(context):
        dag_run = context["dag_run"]
        last = _last_change()
        if last is None or not last.supersedes(dag_run.run_id, dag_run.run_after):
            _note_change(HoldChange(dag_run.run_id, dag_run.run_after.isoformat()))


def _has_resolved_before(context: Context) -> bool:
    """Return whether an earlier try of this task has pushed its model run, which it does once the hold is changed."""
    # A try deletes the XComs of earlier ones before it executes (Airflow 3.3.2, task_runner), and knows their keys.
    known = context["ti"]._ti_context_from_server  # type: ignore[attr-defined]  # noqa: SLF001
    return known is not None and BaseXCom.XCOM_RETURN_KEY in (known.xcom_keys_to_clear or [])


def change_hold(context: Context, choice: ModelChoice, run: ModelRun) -> None:
    """Set or end the hold as this run asks, once, unless a newer run has changed it.

    Raise RunConfigurationError where a newer run has, and this one was not cleared: somebody waits for its hold.
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
    # After the hold: a try that dies in between leaves its retry to do both again.
    _note_change(HoldChange(dag_run.run_id, dag_run.run_after.isoformat()))


def _note_change(change: HoldChange) -> None:
    Variable.set(HOLD_CHANGE_VARIABLE, change.to_json(), description="The run that set or ended a hold last")


def triggered_by(context: Context) -> str:
    return context["dag_run"].triggering_user_name or "unknown"


def _last_change() -> HoldChange | None:
    if noted := Variable.get(HOLD_CHANGE_VARIABLE, default=None):
        return HoldChange.from_json(noted)
    # A hold of a version that did not note its changes.
    hold = held_model()
    return HoldChange("", hold.since) if hold else None
