"""Mails operators of failed tasks, late runs and alarms: once, not with every run while it lasts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeVar, cast
from urllib.parse import quote

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import Context
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from fraud_scoring.connections import staging
from include.batch.alarms import ADVICE, Advice
from include.batch.storage import Storage
from include.errors import FraudError, SettingError
from include.report import render
from include.report.incident import Failure, Incident, Incidents, describe, message_id
from include.settings import Settings

log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_Place = Callable[[], Storage]

LATE = "late run"
_TASK_NEXT = (
    "No payment is lost: what was not published stays on the topic, and the next run drains it. "
    "Reports stay owed until they are mailed."
)
_LATE_NEXT = "Payments wait on the topic meanwhile. The next run starts when this one has ended, and drains them all."
# The XCom of the task that fixes the batch: a list of {"kind", "sentence"}, empty where there is nothing to tell.
ALARMS = "alarms"
# How long a task that failed may take to say so itself, before it counts as killed.
_TASKS_OWN_SECONDS = 10.0
# Well below [core] task_success_overtime (20), at which Airflow kills a task's process that still runs callbacks.
_ALARM_SECONDS = 10


class IncidentNotifier(SmtpNotifier):
    """For `on_failure_callback` of the tasks, which Airflow calls after the last try only, and of the DAG.

    A task whose process is killed, and a run that takes too long, have no other callback than the DAG's.

    No part of its mail is a template: what an error says must not run as Jinja.
    """

    template_fields = ()  # type: ignore[assignment]  # SmtpNotifier's own type is a tuple of eleven

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(to=[], **kwargs)

    def notify(self, context: Context) -> None:
        settings = Settings.usable()
        places = _places(settings)
        if "reason" in context:
            failure = _run_failure(context)
            if _is_told_by_the_task(places, failure):
                return
        else:
            failure = _task_failure(context)
        incident = _in_first(places, lambda incidents: incidents.add(failure)) or _uncounted(failure)
        self._mail_if_due(context, failure, incident, settings, Advice(f"{failure.what} failed", "", _TASK_NEXT))

    def tell_alarm(self, context: Context, alarm: Failure, advice: Advice) -> None:
        settings = Settings.usable()
        counted = _in_first(_places(settings), lambda incidents: incidents.add(alarm))
        self._mail_if_due(context, alarm, counted or _uncounted(alarm), settings, advice)

    def _mail_if_due(
        self, context: Context, failure: Failure, incident: Incident, settings: Settings, advice: Advice
    ) -> None:
        if self._is_due(failure, incident, settings, advice):
            super().notify(context)
            _in_first(_places(settings), lambda incidents: incidents.told(failure, incident))
            log.info("operators told of %s: %s, %d recipients", failure.what, failure.cause, len(settings.operators))

    async def notify_late(self, context: dict[str, Any]) -> None:
        """For the triggerer, whose one thread must not wait for a disk."""
        settings = Settings.usable()
        places = _places(settings)
        failure = _late_run(context, settings)
        quiet = max(timedelta(hours=1), 4 * timedelta(minutes=settings.late_minutes))
        counted = await asyncio.to_thread(_in_first, places, lambda incidents: incidents.add(failure, quiet=quiet))
        incident = counted or _uncounted(failure)
        if self._is_due(failure, incident, settings, Advice("A run is late", "", _LATE_NEXT)):
            await super().async_notify(cast("Context", context))
            await asyncio.to_thread(_in_first, places, lambda incidents: incidents.told(failure, incident))
            log.info("operators told of %s: %s, %d recipients", failure.what, failure.cause, len(settings.operators))

    def _is_due(self, failure: Failure, incident: Incident, settings: Settings, advice: Advice) -> bool:
        """Writes the mail if one is due."""
        try:
            operators = settings.operators
        except SettingError as error:
            log.error("nobody is told of %s: %s", failure.what, error)
            return False
        if not operators:
            log.warning("nobody is told of %s: FRAUD_OPERATORS_EMAIL names no address", failure.what)
            return False
        if not incident.is_due(timedelta(hours=settings.reminder_hours)):
            log.info(
                "operators were told of %s at %s; %d times since %s",
                *(failure.what, incident.told, incident.failures, incident.since),
            )
            return False
        self.to = list(operators)
        again = "Reminder: " if incident.told else ""
        what = failure.detail if advice.meaning else f"{failure.cause}, {failure.detail}"
        self.subject = f"{again}{failure.dag_id}: {advice.title}: {what}"
        self.html_content = render.html(
            "incident.html.j2",
            advice=advice,
            failure=failure,
            incident=incident,
            reminder_hours=settings.reminder_hours,
        )
        self.custom_headers = {"Message-ID": message_id(failure)}
        return True


def _is_told_by_the_task(places: Iterable[_Place], failure: Failure) -> bool:
    """A task names its cause a moment after Airflow knows that it failed, and the run may be over by then."""
    until = time.monotonic() + _TASKS_OWN_SECONDS
    while True:
        if any(_in_first([place], lambda incidents: incidents.has(failure.what, failure.run_id)) for place in places):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def incident_over(context: Context) -> None:
    """For `on_success_callback` of a task: its next failure is a new incident."""
    ti = context["ti"]
    for place in _places(Settings.usable()):
        if _in_first([place], lambda incidents: incidents.over(ti.task_id, _map_index(ti))):
            log.info("%s works again", ti.task_id)


def tell_alarms(context: Context) -> None:
    """For `on_success_callback` of the task that fixes the batch: mails what its XCom `alarms` holds.

    Each kind is an incident that ends with the first batch without it. A task that fails never gets here, so its run
    ends none. Airflow 3.3.2 records a task's success before it calls this (task_runner.run, then finalize): the tasks
    and runs that follow do not wait, and nothing that happens here can fail the task.
    """
    ti = context["ti"]
    alarms = ti.xcom_pull(task_ids=ti.task_id, key=ALARMS)
    if alarms is None:
        log.warning("%s has left no XCom %s: nothing is known of alarms", ti.task_id, ALARMS)
        return
    sentences = {alarm["kind"]: alarm["sentence"] for alarm in alarms}
    try:
        with TimeoutPosix(_ALARM_SECONDS, f"alarms were not told within {_ALARM_SECONDS} s"):  # type: ignore[no-untyped-call]
            for kind, advice in ADVICE.items():
                if kind in sentences:
                    _tell_alarm(context, kind, sentences[kind], advice)
                else:
                    _alarm_over(kind, _map_index(ti))
    except AirflowTaskTimeout as error:
        # Not noted as told: the next run tries again.
        log.error("%s; does the mail server hang?", error)


def _tell_alarm(context: Context, kind: str, sentence: str, advice: Advice) -> None:
    ti, now = context["ti"], datetime.now(UTC)
    alarm = Failure(kind, kind, sentence, ti.dag_id, ti.run_id, ti.log_url, now, ti.try_number, _map_index(ti))
    try:
        IncidentNotifier().tell_alarm(context, alarm, advice)
    except Exception as error:
        # SMTP fails with errors of several libraries; the other alarms are still to be told.
        log.error("operators could not be told of %s, the next run tries again: %s", kind, type(error).__name__)


def _alarm_over(kind: str, map_index: int) -> None:
    for place in _places(Settings.usable()):
        if _in_first([place], lambda incidents: incidents.over(kind, map_index)):
            log.info("%s is over", kind)


async def late_run(context: dict[str, Any]) -> None:
    """What the deadline calls, in the triggerer."""
    await IncidentNotifier().notify_late(context)


def late_run_alert(after: timedelta) -> DeadlineAlert | None:
    """None under `airflow dags test`: Airflow 3.3.2 looks the alert up by an id that only a stored DAG has."""
    if sys.argv[1:3] == ["dags", "test"]:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=after,
        callback=AsyncCallback(late_run),
    )


def _places(settings: Settings) -> list[_Place]:
    """The staging area, which all workers share; while that itself is broken or full, this machine."""
    return [partial(staging, settings), _local]


def _in_first(places: Iterable[_Place], do: Callable[[Incidents], _Answer]) -> _Answer | None:
    """None where no place can be used: the mail must go out all the same."""
    for place in places:
        try:
            return do(Incidents(place()))
        except Exception as error:
            # Access to S3 fails with errors of several libraries.
            reason = error if isinstance(error, FraudError) else type(error).__name__
            log.warning(
                "incidents cannot be kept in %s: %s",
                "the temporary folder" if place is _local else "the staging area",
                reason,
            )
    return None


def _uncounted(failure: Failure) -> Incident:
    return Incident(failure.cause, failure.at, failure.at, run_id=failure.run_id, map_index=failure.map_index)


def _local() -> Storage:
    return Storage.open(str(Path(gettempdir(), f"fraud_incidents_{os.getuid()}")))


def _task_failure(context: Context) -> Failure:
    ti = context["ti"]
    cause, detail = describe(context.get("exception"))
    return Failure(
        ti.task_id, cause, detail, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number, _map_index(ti)
    )


def _run_failure(context: Mapping[str, Any]) -> Failure:
    """The DAG's callback knows a task that failed, or not even that."""
    cause, detail = describe(None)
    if context["reason"] == "timed_out":
        cause, detail = "RunTimedOut", "the run took longer than its dagrun_timeout and was ended"
    ti = context.get("ti")
    if ti is not None:
        return Failure(ti.task_id, cause, detail, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number)
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    return Failure("run", cause, detail, dag_id, run_id, _run_url(dag_id, run_id), datetime.now(UTC))


def _late_run(context: dict[str, Any], settings: Settings) -> Failure:
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    return Failure(
        LATE,
        "Late",
        f"not done {settings.late_minutes:g} minutes after it was queued",
        dag_id,
        run_id,
        _run_url(dag_id, run_id),
        datetime.now(UTC),
    )


def _run_url(dag_id: str, run_id: str) -> str:
    base_url = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    return f"{base_url}/dags/{quote(dag_id)}/runs/{quote(run_id)}"


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)
