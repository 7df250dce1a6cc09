"""Mail operators once an incident about what is wrong with the topic or the pace.

`include/batch/batch_alarms.py` and `dead_letter_alarm.py` find what is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.kept_incidents import KeptIncidents
from fraud_scoring.smtp_hook import mail_error
from include.batch.alarm_texts import ADVICE, Advice
from include.errors import SettingError
from include.report.incident import Failure, Incident
from include.settings import Settings

log = logging.getLogger(__name__)

# The XCom of the tasks that look for alarms: a list of {"kind", "sentence", "cause"}. An empty cause ends that kind; a
# kind that is not listed is neither raised nor ended.
ALARMS = "alarms"
# Well below [core] task_success_overtime (20), at which Airflow kills a task's process that still runs callbacks.
_ALARM_SECONDS = 10


def mail_alarms(context: Context) -> None:
    """Mail what the task's XCom `alarms` holds: the `on_success_callback` of `plan` and `reports`, and what follows on
    each try of `record_predictions`.

    Each kind is an incident that ends with the first batch without it. A `plan` that fails ends none. Airflow 3.3.2
    records a task's success before it calls this (task_runner.run, then finalize): the tasks and runs that follow do
    not wait, and nothing that happens here can fail the task.
    """
    ti = context["ti"]
    alarms = ti.xcom_pull(task_ids=ti.task_id, key=ALARMS)
    if alarms is None:
        log.warning("%s has left no XCom %s: nothing is known of alarms", ti.task_id, ALARMS)
        return
    _tell_all(
        lambda settings: [
            _note(ti, settings, **alarm) if alarm["cause"] else _end(ti, settings, **alarm) for alarm in alarms
        ]
    )


@dataclass(frozen=True)
class _Noted:
    """`ends`: the mail says that the incident is over."""

    alarm: Failure
    incident: Incident
    advice: Advice
    ends: bool = False


def _tell_all(note: Callable[[Settings], list[_Noted | None]]) -> None:
    try:
        with TimeoutPosix(_ALARM_SECONDS, f"alarms were not told within {_ALARM_SECONDS} s"):  # type: ignore[no-untyped-call]
            # All are noted before the first mail, which may hang.
            for noted in filter(None, note(Settings.usable())):
                _tell(noted)
    except AirflowTaskTimeout as error:
        # Not noted as told: the next run tries again.
        log.error("%s; does the mail server hang?", error)


def _alarm(ti: Any, kind: str, sentence: str, cause: str) -> Failure:
    return Failure(kind, cause, sentence, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number)


def _note(ti: Any, settings: Settings, kind: str, sentence: str, cause: str) -> _Noted:
    advice = ADVICE[kind]
    alarm = _alarm(ti, kind, sentence, cause)
    incident = KeptIncidents(settings, ti.dag_id).add(alarm)
    if advice.is_event:
        alarm = replace(alarm, detail=incident.untold or sentence)
    return _Noted(alarm, incident, advice)


def _end(ti: Any, settings: Settings, kind: str, sentence: str, cause: str) -> _Noted | None:
    """Return what is still to be mailed of a kind that this batch does not have: unreported events, or its end."""
    advice, kept = ADVICE[kind], KeptIncidents(settings, ti.dag_id)
    speaks = (advice.is_event or advice.end) and _has_operators(settings)
    rest = kept.last(kind) if speaks else None
    if rest is not None and not rest.is_over:
        if advice.is_event and rest.untold:
            # Due whenever the last mail was.
            return _Noted(_alarm(ti, kind, rest.untold, kind), replace(rest, told=None), advice)
        if advice.end and rest.told:
            return _Noted(_alarm(ti, kind, sentence, rest.cause), rest, advice.end, ends=True)
    if kept.close(kind, -1):
        log.info("%s is over", kind)
    return None


def _has_operators(settings: Settings) -> bool:
    try:
        return bool(settings.operators)
    except SettingError:
        return False


def _tell(noted: _Noted) -> None:
    try:
        if noted.ends:
            IncidentNotifier().send_end(noted.alarm, noted.incident, noted.advice)
        else:
            IncidentNotifier().send(noted.alarm, noted.incident, noted.advice)
    except Exception as error:
        # SMTP fails with errors of several libraries; the other alarms are still to be told.
        log.error(
            "operators could not be told of %s, the next run tries again: %s", noted.alarm.what, mail_error(error)
        )
