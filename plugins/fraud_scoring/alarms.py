"""Mails operators of what is wrong with the topic or the pace, once an incident: `include/batch/alarms.py` finds it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.kept_incidents import KeptIncidents
from include.batch.advice import ADVICE, Advice
from include.errors import SettingError
from include.report.incident import Failure, Incident
from include.settings import Settings

log = logging.getLogger(__name__)

# The XCom of the task that fixes the batch: a list of {"kind", "sentence"}, empty where there is nothing to tell.
ALARMS = "alarms"
# Well below [core] task_success_overtime (20), at which Airflow kills a task's process that still runs callbacks.
_ALARM_SECONDS = 10


def tell_alarms(context: Context) -> None:
    """For `on_success_callback` of the task that fixes the batch: mails what its XCom `alarms` holds.

    Each kind is an incident that ends with the first batch without it. Events, which no later batch finds again, are
    mailed before. A task that fails never gets here, so its run ends none. Airflow 3.3.2 records a task's success
    before it calls this (task_runner.run, then finalize): the tasks and runs that follow do not wait, and nothing that
    happens here can fail the task.
    """
    ti = context["ti"]
    alarms = ti.xcom_pull(task_ids=ti.task_id, key=ALARMS)
    if alarms is None:
        log.warning("%s has left no XCom %s: nothing is known of alarms", ti.task_id, ALARMS)
        return
    settings = Settings.usable()
    sentences = {alarm["kind"]: alarm["sentence"] for alarm in alarms}
    try:
        with TimeoutPosix(_ALARM_SECONDS, f"alarms were not told within {_ALARM_SECONDS} s"):  # type: ignore[no-untyped-call]
            # All are noted before the first mail, which may hang.
            noted = [_note(ti, settings, kind, sentences.get(kind, ""), advice) for kind, advice in ADVICE.items()]
            for alarm, incident, advice in filter(None, noted):
                _tell(context, alarm, incident, advice)
    except AirflowTaskTimeout as error:
        # Not noted as told: the next run tries again.
        log.error("%s; does the mail server hang?", error)


def _note(
    ti: Any, settings: Settings, kind: str, sentence: str, advice: Advice
) -> tuple[Failure, Incident, Advice] | None:
    kept = KeptIncidents(settings, ti.dag_id)
    alarm = Failure(kind, kind, sentence, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number)
    if sentence:
        incident = kept.add(alarm)
    else:
        rest = kept.last(kind) if advice.is_event and _has_operators(settings) else None
        if rest is None or rest.is_over or not rest.untold:
            if kept.over(kind, alarm.map_index):
                log.info("%s is over", kind)
            return None
        # Due whenever the last mail was.
        incident = replace(rest, told=None)
    if advice.is_event:
        alarm = replace(alarm, detail=incident.untold or sentence)
    return alarm, incident, advice


def _has_operators(settings: Settings) -> bool:
    try:
        return bool(settings.operators)
    except SettingError:
        return False


def _tell(context: Context, alarm: Failure, incident: Incident, advice: Advice) -> None:
    try:
        IncidentNotifier().send(alarm, incident, advice)
    except Exception as error:
        # SMTP fails with errors of several libraries; the other alarms are still to be told.
        log.error("operators could not be told of %s, the next run tries again: %s", alarm.what, type(error).__name__)
