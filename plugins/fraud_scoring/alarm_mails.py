"""Mail operators about alarms: a task succeeded, but something is wrong with the topic, its messages or the lag.

`include/batch/batch_alarms.py` and `dead_letter_alarm.py` find alarms. Each kind of alarm is an incident.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from fraud_scoring.incident_store import IncidentStore
from fraud_scoring.incidents import IncidentNotifier
from fraud_scoring.smtp_hook import describe_mail_error
from include.batch.alarm_texts import ADVICE, Advice
from include.errors import SettingError
from include.report.incident import Failure, Incident
from include.settings import Settings

log = logging.getLogger(__name__)

# The XCom of the tasks that look for alarms: a list of {"kind", "sentence", "cause"}. An empty cause ends the alarm of
# that kind. A kind that is not listed stays as it is.
ALARMS = "alarms"
# Well below [core] task_success_overtime (20), after which Airflow kills a task's process that still runs callbacks.
_ALARM_SECONDS = 10


def mail_alarms(context: Context) -> None:
    """Mail about the alarms in the task's XCom `alarms`.

    It is the `on_success_callback` of `plan` and `reports`, and the callback after each try of `record_predictions`.
    An alarm ends with the first batch that does not have it; a failed `plan` ends none. Airflow 3.3.2 records a task's
    success before it calls this (task_runner.run, then finalize): later tasks and runs do not wait for it, and no
    error here fails the task.
    """
    ti = context["ti"]
    alarms = ti.xcom_pull(task_ids=ti.task_id, key=ALARMS)
    if alarms is None:
        log.warning("%s has pushed no XCom %s: alarms are neither raised nor ended", ti.task_id, ALARMS)
        return
    message = f"alarms were not mailed within {_ALARM_SECONDS} s"
    try:
        with TimeoutPosix(_ALARM_SECONDS, message):  # type: ignore[no-untyped-call]
            settings = Settings.usable()
            # Store all alarms before the first mail, during which the server may hang.
            mails = [_add(ti, settings, **alarm) if alarm["cause"] else _end(ti, settings, **alarm) for alarm in alarms]
            for mail in filter(None, mails):
                _send(mail)
    except AirflowTaskTimeout as error:
        # These mails are not recorded as sent: the next run tries again.
        log.error("%s. The next run tries again; check that the mail server answers", error)


@dataclass(frozen=True)
class _AlarmMail:
    """A mail about an alarm, sent if it is due. `ends`: whether the alarm has ended."""

    alarm: Failure
    incident: Incident
    advice: Advice
    ends: bool = False


def _as_failure(ti: Any, kind: str, sentence: str, cause: str) -> Failure:
    return Failure(kind, cause, sentence, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number)


def _add(ti: Any, settings: Settings, kind: str, sentence: str, cause: str) -> _AlarmMail:
    """Store an alarm, and return the mail about it."""
    advice = ADVICE[kind]
    alarm = _as_failure(ti, kind, sentence, cause)
    incident = IncidentStore(settings, ti.dag_id).add(alarm)
    if advice.is_event:
        alarm = replace(alarm, detail=incident.unmailed_details or sentence)
    return _AlarmMail(alarm, incident, advice)


def _end(ti: Any, settings: Settings, kind: str, sentence: str, cause: str) -> _AlarmMail | None:
    """End the alarm of a kind that this batch does not have, or return what to mail first: unmailed events or its end.

    The next batch ends an alarm whose unmailed events are mailed now. A mail about the end ends the alarm when sent.
    """
    advice, store = ADVICE[kind], IncidentStore(settings, ti.dag_id)
    has_mail = (advice.is_event or advice.end) and _has_operators(settings)
    last = store.last(kind) if has_mail else None
    if last is not None and not last.is_over:
        if advice.is_event and last.unmailed_details:
            # Without `told` the mail is due, however recent the last one is.
            return _AlarmMail(_as_failure(ti, kind, last.unmailed_details, kind), replace(last, told=None), advice)
        if advice.end and last.told:
            return _AlarmMail(_as_failure(ti, kind, sentence, last.cause), last, advice.end, ends=True)
    if store.close(kind):
        log.info("alarm %r has ended", kind)
    return None


def _has_operators(settings: Settings) -> bool:
    try:
        return bool(settings.operators)
    except SettingError:
        return False


def _send(mail: _AlarmMail) -> None:
    send = IncidentNotifier().send_end if mail.ends else IncidentNotifier().send
    try:
        send(mail.alarm, mail.incident, mail.advice)
    except Exception as error:
        # SMTP raises errors of several libraries, and the other alarms must still be mailed.
        log.error(
            "alarm %r could not be mailed to operators: %s. The next run tries again",
            mail.alarm.what,
            describe_mail_error(error),
        )
