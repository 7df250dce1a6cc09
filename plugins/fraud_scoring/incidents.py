"""Mail operators about failed tasks and late runs: once for each incident, then only reminders while it lasts."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from textwrap import shorten
from typing import Any

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import Context
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from fraud_scoring.callback_context import late_run_failure, map_index, run_failure, task_failure
from fraud_scoring.incident_store import IncidentStore, installation
from fraud_scoring.smtp_hook import MailServer, describe_refusals
from include.batch.alarm_texts import Advice
from include.errors import SettingError
from include.report import render
from include.report.incident import Failure, Incident, message_id
from include.settings import Settings

log = logging.getLogger(__name__)

_REFUSED_OPERATORS = "operators' addresses"
_AFTER_TASK_FAILURE = (
    "No payment is lost: unpublished payments stay on the topic, and the next run drains them. Pending reports are "
    "mailed by a later run."
)
_AFTER_LATE_RUN = (
    "Payments wait on the topic meanwhile. The next run starts when this one has ended, and drains them all."
)
_ADVICE_REFUSED_OPERATORS = Advice(
    "An operator's address is refused",
    "The mail server accepted a mail to operators, but refused it for these addresses of FRAUD_OPERATORS_EMAIL. They "
    "receive no mails about alarms and failures.",
    "Correct FRAUD_OPERATORS_EMAIL, or configure the mail server to accept the address.",
)
# How long to wait for the failed task's own callback. A task without one counts as killed.
_TASK_CALLBACK_SECONDS = 10.0
_MAX_SUBJECT_LENGTH = 300


class IncidentNotifier(SmtpNotifier):
    """The `on_failure_callback` of tasks, which Airflow calls after the last try only, and of DAGs.

    For a task whose process was killed and for a run that timed out, Airflow calls the DAG's callback only.

    No part of the mail is a template field: the text of an error must not run as Jinja.
    """

    template_fields = ()  # type: ignore[assignment]  # SmtpNotifier's own type is a tuple of eleven

    def __init__(self, *, task_next: str = _AFTER_TASK_FAILURE, **kwargs: Any) -> None:
        """Create a notifier. `task_next` is the mail's text about what happens after a failure."""
        super().__init__(to=[], **kwargs)
        self.task_next = task_next

    def notify(self, context: Context) -> None:
        """Mail about the failure that the context describes, if a mail is due."""
        if "reason" in context:
            failure = run_failure(context)
            if _has_task_callback(IncidentStore(Settings.usable(), failure.dag_id), failure):
                return
        else:
            failure = task_failure(context)
        self._add_and_send(failure, Advice(f"{failure.what} failed", "", self.task_next))

    async def notify_late(self, context: dict[str, Any]) -> None:
        """Mail about a late run. The triggerer's event loop must not wait for a disk or a mail server."""
        settings = Settings.usable()
        failure = late_run_failure(context, settings.late_minutes)
        quiet = max(timedelta(hours=1), 4 * timedelta(minutes=settings.late_minutes))
        await asyncio.to_thread(self._add_and_send, failure, Advice("A run is late", "", _AFTER_LATE_RUN), quiet=quiet)

    def _add_and_send(self, failure: Failure, advice: Advice, *, quiet: timedelta | None = None) -> None:
        incident = IncidentStore(Settings.usable(), failure.dag_id).add(failure, quiet=quiet)
        self.send(failure, incident, advice)

    def send(self, failure: Failure, incident: Incident, advice: Advice) -> None:
        """Mail about a stored incident, if a mail is due, and record the mail."""
        settings = Settings.usable()
        if self._is_due(failure, incident, settings):
            self._build(failure, incident, settings, advice)
            refused = self._mail()
            IncidentStore(settings, failure.dag_id).record_mail(failure, incident)
            self._log_mail(failure, refused)

    def send_end(self, failure: Failure, incident: Incident, advice: Advice) -> None:
        """Mail that the incident is over, and close it. After two mails in an hour, leave both to a later call."""
        settings = Settings.usable()
        if not incident.may_mail(failure.at):
            return
        self._build(failure, incident, settings, advice, ends=True)
        refused = self._mail()
        store = IncidentStore(settings, failure.dag_id)
        store.record_mail(failure, incident)
        store.close(failure.what, incident.map_index)
        self._log_mail(failure, refused)

    def _is_due(self, failure: Failure, incident: Incident, settings: Settings) -> bool:
        """Return whether a mail is due, and log why if it is not."""
        try:
            operators = settings.operators
        except SettingError as error:
            log.error("cannot mail about %s: %s", failure.what, error)
            return False
        if not operators:
            log.warning(
                "no mail about %s: FRAUD_OPERATORS_EMAIL names no address. Set it to the addresses of operators",
                failure.what,
            )
            return False
        if not incident.is_due(timedelta(hours=settings.reminder_hours), failure.at):
            log.info(
                "no mail about %s is due: the last one was sent at %s; %d times since %s",
                *(failure.what, incident.told, incident.failures, incident.since),
            )
            return False
        return True

    def _build(
        self, failure: Failure, incident: Incident, settings: Settings, advice: Advice, *, ends: bool = False
    ) -> None:
        self.to = list(settings.operators)
        reminder = "Reminder: " if incident.told and not ends else ""
        what = failure.detail if advice.meaning else f"{failure.cause}, {failure.detail}"
        what = shorten(what, _MAX_SUBJECT_LENGTH, placeholder=" …")
        self.subject = f"{reminder}{failure.dag_id}: {advice.title}: {what}"
        self.html_content = render.html(
            "incident.html.j2",
            advice=advice,
            failure=failure,
            incident=incident,
            reminder_hours=settings.reminder_hours,
            ends=ends,
        )
        self.custom_headers = {"Message-ID": message_id(failure, installation(settings))}

    def _mail(self) -> dict[str, str]:
        """Send the mail, and return the server's reply for each operator that it refused."""
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

    def _log_mail(self, failure: Failure, refused: Mapping[str, str]) -> None:
        """Log the mail that was sent. Mail the other operators about addresses that the server refused."""
        log.info(
            "mailed operators about %s: %s, %d recipients",
            *(failure.what, failure.cause, len(list(self.to)) - len(refused)),
        )
        if failure.what == _REFUSED_OPERATORS:
            return
        if not refused:
            IncidentStore(Settings.usable(), failure.dag_id).close(_REFUSED_OPERATORS)
            return
        addresses = describe_refusals(refused)
        log.error(
            "the mail server refused addresses of FRAUD_OPERATORS_EMAIL: %s. Correct the setting, or configure the "
            "server to accept them",
            addresses,
        )
        refusal = replace(failure, what=_REFUSED_OPERATORS, cause="Refused", detail=addresses, map_index=-1)
        self._add_and_send(refusal, _ADVICE_REFUSED_OPERATORS)


def _has_task_callback(store: IncidentStore, failure: Failure) -> bool:
    """Return whether the failed task has stored the failure itself, which it does some seconds after the run ended."""
    until = time.monotonic() + _TASK_CALLBACK_SECONDS
    while True:
        if store.has(failure.what, failure.run_id):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def close_incident(context: Context) -> None:
    """Close the task's incident: the `on_success_callback` of tasks. The next failure begins a new one."""
    ti = context["ti"]
    if IncidentStore(Settings.usable(), ti.dag_id).close(ti.task_id, map_index(ti)):
        log.info("%s works again", ti.task_id)


async def late_run(context: dict[str, Any]) -> None:
    """Mail about a late run: the callback of `late_run_alert`, which the triggerer calls."""
    await IncidentNotifier().notify_late(context)


def late_run_alert(after: timedelta) -> DeadlineAlert | None:
    """Return an alert for runs that are not done `after` they were queued.

    Return None under `airflow dags test`: Airflow 3.3.2 reads the alert by an id that only a stored DAG has.
    """
    if sys.argv[1:3] == ["dags", "test"]:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=after,
        callback=AsyncCallback(late_run),
    )
