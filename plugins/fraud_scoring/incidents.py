"""Mails operators of failed tasks and late runs: once, not with every run while it lasts."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from textwrap import shorten
from typing import Any

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import Context
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from fraud_scoring.kept_incidents import KeptIncidents, installation
from fraud_scoring.run_url import run_url
from fraud_scoring.smtp_hook import MailServer, listed
from include.batch.alarm_texts import Advice
from include.errors import SettingError
from include.report import render
from include.report.incident import Failure, Incident, describe, message_id
from include.settings import Settings

log = logging.getLogger(__name__)

LATE = "late run"
REFUSED_OPERATORS = "operators' addresses"
_TASK_NEXT = (
    "No payment is lost: what was not published stays on the topic, and the next run drains it. "
    "Reports stay owed until they are mailed."
)
_LATE_NEXT = "Payments wait on the topic meanwhile. The next run starts when this one has ended, and drains them all."
ADVICE_ADDRESSES = Advice(
    "An operator's address is refused",
    "The mail server took a mail to operators for some of the addresses in FRAUD_OPERATORS_EMAIL, and refused it for "
    "these. They receive no alarms or failure mails.",
    "Correct FRAUD_OPERATORS_EMAIL, or have the mail server accept the address.",
)
# How long a task that failed may take to say so itself, before it counts as killed.
_TASKS_OWN_SECONDS = 10.0
_LONGEST_SUBJECT = 300


class IncidentNotifier(SmtpNotifier):
    """For `on_failure_callback` of the tasks, which Airflow calls after the last try only, and of the DAG.

    A task whose process is killed, and a run that takes too long, have no other callback than the DAG's.

    No part of its mail is a template: what an error says must not run as Jinja.
    """

    template_fields = ()  # type: ignore[assignment]  # SmtpNotifier's own type is a tuple of eleven

    def __init__(self, *, task_next: str = _TASK_NEXT, **kwargs: Any) -> None:
        """`task_next`: what a mail says of what follows a failure."""
        super().__init__(to=[], **kwargs)
        self.task_next = task_next

    def notify(self, context: Context) -> None:
        settings = Settings.usable()
        if "reason" in context:
            failure = _run_failure(context)
            if _is_told_by_the_task(KeptIncidents(settings, failure.dag_id), failure):
                return
        else:
            failure = _task_failure(context)
        self.tell(failure, Advice(f"{failure.what} failed", "", self.task_next))

    def tell(self, failure: Failure, advice: Advice) -> None:
        kept = KeptIncidents(Settings.usable(), failure.dag_id)
        self.send(failure, kept.add(failure), advice)

    def send(self, failure: Failure, incident: Incident, advice: Advice) -> None:
        """Mail what was added to the incidents, if a mail is due."""
        settings = Settings.usable()
        if self._is_due(failure, incident, settings, advice):
            refused = self._mail()
            KeptIncidents(settings, failure.dag_id).record_mail(failure, incident)
            self._log_sent(failure, refused)

    def send_end(self, failure: Failure, incident: Incident, advice: Advice) -> None:
        """Mail that it is over, and note it; later where there were too many mails of late."""
        settings = Settings.usable()
        if not incident.may_mail(failure.at):
            return
        self._write(failure, incident, settings, advice, ends=True)
        refused = self._mail()
        kept = KeptIncidents(settings, failure.dag_id)
        kept.record_mail(failure, incident)
        kept.close(failure.what, incident.map_index)
        self._log_sent(failure, refused)

    async def notify_late(self, context: dict[str, Any]) -> None:
        """For the triggerer, whose one thread must not wait for a disk or a mail server."""
        settings = Settings.usable()
        failure = _late_run(context, settings)
        kept = KeptIncidents(settings, failure.dag_id)
        quiet = max(timedelta(hours=1), 4 * timedelta(minutes=settings.late_minutes))
        incident = await asyncio.to_thread(kept.add, failure, quiet=quiet)
        await asyncio.to_thread(self.send, failure, incident, Advice("A run is late", "", _LATE_NEXT))

    def _mail(self) -> dict[str, str]:
        """Return the server's answers by operator whom it refused."""
        server = MailServer(self.smtp_conn_id)
        with server:
            server.send_email_smtp(
                to=self.to,
                from_email=server.from_email,
                subject=self.subject,
                html_content=self.html_content,
                custom_headers=self.custom_headers,
            )
        return server.refused

    def _log_sent(self, failure: Failure, refused: Mapping[str, str]) -> None:
        """Log the mail that was sent; mail accepted operators about refused addresses."""
        log.info(
            "operators told of %s: %s, %d recipients", failure.what, failure.cause, len(list(self.to)) - len(refused)
        )
        if failure.what == REFUSED_OPERATORS:
            return
        if not refused:
            KeptIncidents(Settings.usable(), failure.dag_id).close(REFUSED_OPERATORS, -1)
            return
        log.error(
            "mail server refused addresses of FRAUD_OPERATORS_EMAIL: %s. Correct the setting, or have the server "
            "accept them",
            listed(refused),
        )
        # Those whom it takes hear of the others.
        told = replace(failure, what=REFUSED_OPERATORS, cause="Refused", detail=listed(refused), map_index=-1)
        self.tell(told, ADVICE_ADDRESSES)

    def _is_due(self, failure: Failure, incident: Incident, settings: Settings, advice: Advice) -> bool:
        """Write the mail if one is due."""
        try:
            operators = settings.operators
        except SettingError as error:
            log.error("nobody is told of %s: %s", failure.what, error)
            return False
        if not operators:
            log.warning("nobody is told of %s: FRAUD_OPERATORS_EMAIL names no address", failure.what)
            return False
        if not incident.is_due(timedelta(hours=settings.reminder_hours), failure.at):
            log.info(
                "operators were told of %s at %s; %d times since %s",
                *(failure.what, incident.told, incident.failures, incident.since),
            )
            return False
        self._write(failure, incident, settings, advice)
        return True

    def _write(
        self, failure: Failure, incident: Incident, settings: Settings, advice: Advice, *, ends: bool = False
    ) -> None:
        self.to = list(settings.operators)
        again = "Reminder: " if incident.told and not ends else ""
        what = failure.detail if advice.meaning else f"{failure.cause}, {failure.detail}"
        self.subject = f"{again}{failure.dag_id}: {advice.title}: {shorten(what, _LONGEST_SUBJECT, placeholder=' …')}"
        self.html_content = render.html(
            "incident.html.j2",
            advice=advice,
            failure=failure,
            incident=incident,
            reminder_hours=settings.reminder_hours,
            ends=ends,
        )
        self.custom_headers = {"Message-ID": message_id(failure, installation(settings))}


def _is_told_by_the_task(kept: KeptIncidents, failure: Failure) -> bool:
    """A task names its cause a moment after Airflow knows that it failed, and the run may be over by then."""
    until = time.monotonic() + _TASKS_OWN_SECONDS
    while True:
        if kept.has(failure.what, failure.run_id):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def close_incident(context: Context) -> None:
    """For `on_success_callback` of a task: its next failure is a new incident."""
    ti = context["ti"]
    if KeptIncidents(Settings.usable(), ti.dag_id).close(ti.task_id, map_index(ti)):
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


def _task_failure(context: Context) -> Failure:
    ti = context["ti"]
    cause, detail = describe(context.get("exception"))
    return _failure(ti, cause, detail)


def _failure(ti: Any, cause: str, detail: str) -> Failure:
    return Failure(
        ti.task_id, cause, detail, ti.dag_id, ti.run_id, ti.log_url, datetime.now(UTC), ti.try_number, map_index(ti)
    )


def _run_failure(context: Mapping[str, Any]) -> Failure:
    """The DAG's callback knows a task that failed, or not even that."""
    cause, detail = describe(None)
    if context["reason"] == "timed_out":
        cause, detail = "RunTimedOut", "the run took longer than its dagrun_timeout and was ended"
    ti = context.get("ti")
    if ti is not None:
        return _failure(ti, cause, detail)
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    return Failure("run", cause, detail, dag_id, run_id, run_url(dag_id, run_id), datetime.now(UTC))


def _late_run(context: dict[str, Any], settings: Settings) -> Failure:
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    return Failure(
        LATE,
        "Late",
        f"not done {settings.late_minutes:g} minutes after it was queued",
        dag_id,
        run_id,
        run_url(dag_id, run_id),
        datetime.now(UTC),
    )


def map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)
