"""Mail every pending fraud report through Airflow's SMTP hook."""

from __future__ import annotations

import smtplib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from airflow.providers.smtp.operators.smtp import EmailOperator
from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.smtp_hook import (
    MailServer,
    describe_refusals,
    mail_server_error,
    server_address,
    server_reply,
    smtp_connection,
)
from include.errors import FraudError, RecipientsRefusedError, ReportError, SettingError, StagingError
from include.report.report import (
    ATTACHMENT,
    MAX_ATTACHMENT_BYTES,
    PendingReport,
    ReportDelivery,
    ReportMail,
    ReportQueue,
    build_mail,
)
from include.settings import Settings

# Limits of an attachment, in bytes. The next one is tried if the server replies that the mail is too large, or closes
# the connection without a reply.
ATTACHMENT_BYTES = (MAX_ATTACHMENT_BYTES, 5 * 1024 * 1024, 0)
_TOO_LARGE = 552
_CLOSING = 421
# The server replied, and refused this one mail: it may accept others.
_REFUSALS = (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)
_SERVER_ERRORS = (OSError, smtplib.SMTPException, AirflowException)
# After so many dropped mails in a row, the cause is the server and not the mails.
_MAX_DROPS_IN_A_ROW = 2


class _DroppedError(ReportError):
    """The server closed the connection during a mail. A mail filter may do so because of the mail's content."""


class FraudReportOperator(EmailOperator):
    """Mail the pending reports of the queue that `outbox` returns for the task's context.

    No part of a mail is a template field: Airflow stores those in its database, and the text of a payment would run as
    Jinja.
    """

    template_fields: Sequence[str] = ("conn_id",)
    template_ext: Sequence[str] = ()
    template_fields_renderers: ClassVar[dict[str, str]] = {}

    def __init__(
        self, *, outbox: Callable[[Context], ReportQueue], conn_id: str = "smtp_default", **kwargs: Any
    ) -> None:
        super().__init__(to=[], conn_id=conn_id, **kwargs)
        self.outbox = outbox
        self._server = conn_id
        self._refused: dict[str, str] = {}

    def execute(self, context: Context) -> dict[str, int]:
        """Mail all pending reports, and return how many reports, frauds and frauds left out of an attachment.

        Raise ReportError at the end if some report could not be read, built or sent, RecipientsRefusedError if the
        server refused a recipient, and AirflowFailException for an error that a retry cannot help.
        """
        with translate_permanent_errors():
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, int]:
        try:
            settings = Settings.from_environment()
            connection = self._set_addresses(settings)
        except SettingError as error:
            raise AirflowFailException(f"{error}. Reports stay pending until this is corrected") from error
        # The server's reply for each address that it refused, over all reports.
        refused: dict[str, str] = {}
        try:
            mailed = self._mail_pending(self.outbox(context), settings, connection, refused)
        except (Exception, AirflowTaskTimeout) as error:
            if not refused:
                raise
            # Name these addresses now: reports that they did not get are recorded as delivered, and not sent again.
            reason = str(error) if isinstance(error, FraudError) else f"{type(error).__name__}: see this task's log"
            raise RecipientsRefusedError(f"{self._refusal(refused)}. {reason}") from error
        if refused:
            raise RecipientsRefusedError(self._refusal(refused))
        return mailed

    def _mail_pending(
        self, outbox: ReportQueue, settings: Settings, connection: Connection, refused: dict[str, str]
    ) -> dict[str, int]:
        """Mail all pending reports, and add to `refused` the recipients that the server refused for accepted mails.

        Raise ReportError at the end if a report failed, and at once if the server accepts no mail.
        """
        mailed, failed, drops = {"reports": 0, "frauds": 0, "left_out": 0}, [], 0
        for report in outbox.pending_reports():
            started = time.monotonic()
            try:
                mail = self._mail(report, outbox, mask=settings.mask_cards)
            except (ReportError, StagingError) as error:
                failed.append(f"{report.key}: {error}")
                self.log.error("report %s was not sent: %s", report.key, error)
                drops = drops + 1 if isinstance(error, _DroppedError) else 0
                if drops == _MAX_DROPS_IN_A_ROW:
                    raise ReportError(
                        f"{self._server} closes the connection during every mail: {mailed['reports']} reports were "
                        f"sent, all others stay pending. {'; '.join(failed)}"
                    ) from error
                continue
            except _SERVER_ERRORS as error:
                # The server would not accept other reports either. A retry, or the next run, sends them.
                raise mail_server_error(connection, error) from error
            if mail is None:
                self.log.info(
                    "report %s was not sent: another task has sent it, or begun to send a part of it", report.key
                )
                continue
            refused |= self._refused
            self._record_delivery(report, mail, outbox, settings.recipients, started)
            drops = 0
            mailed["reports"] += 1
            mailed["frauds"] += report.facts.frauds
            mailed["left_out"] += mail.left_out
        failed += [f"{key}: {reason}" for key, reason in outbox.unreadable().items()]
        if failed:
            raise ReportError(f"{len(failed)} reports stay pending, {mailed['reports']} were sent. {'; '.join(failed)}")
        return mailed

    def _record_delivery(
        self, report: PendingReport, mail: ReportMail, outbox: ReportQueue, recipients: tuple[str, ...], started: float
    ) -> None:
        """Record the delivery first of all: a report without the record is sent again."""
        seconds = round(time.monotonic() - started, 3)
        accepted = tuple(address for address in recipients if address not in self._refused)
        outbox.record_delivery(report, ReportDelivery(mail.message_id, accepted, datetime.now(UTC), seconds))
        self.log.info(
            "report %s sent as %s: %d frauds (%d not attached), %d recipients",
            report.key,
            mail.message_id,
            report.facts.frauds,
            mail.left_out,
            len(accepted),
        )
        if self._refused:
            self.log.error("report %s was not accepted for %s", report.key, describe_refusals(self._refused))

    def _refusal(self, refused: Mapping[str, str]) -> str:
        return (
            f"{self._server} refused {describe_refusals(refused)}. The reports went to the other addresses only, and "
            "are not sent again: correct EMAIL_RECIPIENT, or configure the server to accept the address"
        )

    def _set_addresses(self, settings: Settings) -> Connection:
        if not settings.recipients:
            raise SettingError("EMAIL_RECIPIENT is empty: set it to the addresses that receive fraud reports")
        self.to = list(settings.recipients)
        connection = smtp_connection(self.conn_id)
        self.from_email = connection.extra_dejson["from_email"]
        self._server = f"{self.conn_id} ({server_address(connection)})"
        return connection

    def _mail(self, report: PendingReport, outbox: ReportQueue, *, mask: bool) -> ReportMail | None:
        """Build the mail and send it, with a smaller attachment if the server rejects its size or drops it.

        Return None if another task has sent it or begun to send a part of it. Raise ReportError if the server refuses
        or drops the mail, and StagingError if the attempt cannot be recorded.
        """
        for max_bytes in ATTACHMENT_BYTES:
            mail = self._build(report, mask=mask, max_bytes=max_bytes)
            try:
                if not self._send(mail, report, outbox):
                    return None
            except (smtplib.SMTPServerDisconnected, *_REFUSALS) as error:
                # smtplib also raises SMTPServerDisconnected for a timeout or a connection reset during a mail.
                code = getattr(error, "smtp_code", None)
                is_dropped = isinstance(error, smtplib.SMTPServerDisconnected) or code == _CLOSING
                reason = "closed the connection during the mail" if is_dropped else "refused the mail"
                if not max_bytes or not (is_dropped or code == _TOO_LARGE):
                    if is_dropped:
                        raise _DroppedError(f"{self._server} {reason} ({type(error).__name__})") from error
                    reply = f"{type(error).__name__} {server_reply(error)}"
                    raise ReportError(f"{self._server} {reason} ({reply})") from error
                self.log.warning("%s %s: attaching less than %d bytes", self._server, reason, max_bytes)
            else:
                break
        return mail

    def _build(self, report: PendingReport, *, mask: bool, max_bytes: int) -> ReportMail:
        try:
            return build_mail(report.facts, report.frauds, mask=mask, max_attachment_bytes=max_bytes)
        except FraudError as error:
            raise ReportError(f"the mail cannot be built: {error}") from error
        except Exception as error:
            # The text of a library's error may quote a payment: the log gets the traceback without it.
            self.log.error("%s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            raise ReportError(f"the mail cannot be built: {type(error).__name__}, see this task's log") from None

    def _send(self, mail: ReportMail, report: PendingReport, outbox: ReportQueue) -> bool:
        """Send the mail, and return False if another task has sent it or begun to send a part of it.

        Connect before recording the attempt, which fixes the offsets of the report: later commits of its batch would
        need a second report.
        """
        server = MailServer(self.conn_id)
        with _attachment(mail) as path, server:
            if not outbox.begin_report(report):
                return False
            server.send_email_smtp(
                to=self.to,
                from_email=self.from_email,
                subject=mail.subject,
                html_content=mail.html,
                files=[str(path)],
                custom_headers={"Message-ID": mail.message_id},
            )
            self._refused = server.refused
        return True


@contextmanager
def _attachment(mail: ReportMail) -> Iterator[Path]:
    """Yield a file with the attachment's name, because the hook attaches files only. Raise ReportError if it fails."""
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(TemporaryDirectory()), ATTACHMENT)
            path.touch(mode=0o600)
            path.write_bytes(mail.csv)
        except OSError as error:
            raise ReportError(
                f"the attachment cannot be written to the temporary folder ({error.strerror}): free space there, or "
                "set TMPDIR to another folder"
            ) from error
        yield path
