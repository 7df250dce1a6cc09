"""Mails operators when a task has failed for good or a run is late: once, not with every run while it stays broken."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
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

from fraud_scoring.connections import staging
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
            if any(
                _in_first([place], lambda incidents: incidents.has(failure.what, failure.run_id)) for place in places
            ):
                return
        else:
            failure = _task_failure(context)
        incident = _in_first(places, lambda incidents: incidents.add(failure)) or _uncounted(failure)
        if self._is_due(failure, incident, settings, _TASK_NEXT):
            super().notify(context)
            _in_first(places, lambda incidents: incidents.told(failure, incident))
            log.info("operators told of %s: %s, %d recipients", failure.what, failure.cause, len(settings.operators))

    async def notify_late(self, context: dict[str, Any]) -> None:
        """For the triggerer, whose one thread must not wait for a disk."""
        settings = Settings.usable()
        places = _places(settings)
        failure = _late_run(context, settings)
        quiet = max(timedelta(hours=1), 4 * timedelta(minutes=settings.late_minutes))
        counted = await asyncio.to_thread(_in_first, places, lambda incidents: incidents.add(failure, quiet=quiet))
        incident = counted or _uncounted(failure)
        if self._is_due(failure, incident, settings, _LATE_NEXT):
            await super().async_notify(cast("Context", context))
            await asyncio.to_thread(_in_first, places, lambda incidents: incidents.told(failure, incident))
            log.info("operators told of %s: %s, %d recipients", failure.what, failure.cause, len(settings.operators))

    def _is_due(self, failure: Failure, incident: Incident, settings: Settings, what_next: str) -> bool:
        """Writes the mail if one is due."""
        try:
            operators = settings.operators
        except SettingError as error:
            log.error("nobody is told of this failure: %s", error)
            return False
        if not operators:
            log.warning("nobody is told of this failure: FRAUD_OPERATORS_EMAIL names no address")
            return False
        if not incident.is_due(timedelta(hours=settings.reminder_hours)):
            log.info(
                "operators were told at %s; %d failures since %s", incident.told, incident.failures, incident.since
            )
            return False
        self.to = list(operators)
        title = "A run is late" if failure.what == LATE else f"{failure.what} failed"
        again = "Reminder: " if incident.told else ""
        self.subject = f"{again}{failure.dag_id}: {title}: {failure.cause}, {failure.detail}"
        self.html_content = render.html(
            "incident.html.j2",
            title=title,
            failure=failure,
            incident=incident,
            next=what_next,
            reminder_hours=settings.reminder_hours,
        )
        self.custom_headers = {"Message-ID": message_id(failure)}
        return True


def incident_over(context: Context) -> None:
    """For `on_success_callback` of a task: its next failure is a new incident."""
    ti = context["ti"]
    for place in _places(Settings.usable()):
        if _in_first([place], lambda incidents: incidents.over(ti.task_id, _map_index(ti))):
            log.info("%s works again", ti.task_id)


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
