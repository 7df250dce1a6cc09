"""Mail every pending fraud report, by Airflow's SMTP hook."""

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

from fraud_scoring.failures import plain_failures
from fraud_scoring.smtp_hook import MailServer, address, listed, mail_failure, server_answer, smtp_connection
from include.errors import FraudError, RecipientsRefusedError, ReportError, SettingError, StagingError
from include.report.report import (
    ATTACHMENT,
    MAX_ATTACHMENT_BYTES,
    PendingReport,
    ReportDelivery,
    ReportMail,
    ReportQueue,
    build,
)
from include.settings import Settings

# What is tried after a server has said that a mail is too large for it, or has hung up on it without a word.
ATTACHMENT_BYTES = (MAX_ATTACHMENT_BYTES, 5 * 1024 * 1024, 0)
_TOO_LARGE = 552
_CLOSING = 421
# The server answered, and refused this one mail: others may still pass.
_REFUSALS = (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)
_NO_SERVER = (OSError, smtplib.SMTPException, AirflowException)
# So many one after the other, and it is not the mails: the server takes none.
_DROPS = 2


class _DroppedError(ReportError):
    """The server hung up on this mail. That may be for what is in it, as when something on its way chokes on it."""


class FraudReportOperator(EmailOperator):
    """`outbox` is called when the task runs, with its context.

    No part of a mail is a template field: those lie in the metadata database, and payments' text would run as Jinja.
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
        """Mails all that is owed; raises at the end if some report could not be read, built or sent."""
        with plain_failures():
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, int]:
        try:
            settings = Settings.from_environment()
            connection = self._set_addresses(settings)
        except SettingError as error:
            raise AirflowFailException(f"{error}. The report stays owed until then") from error
        # By address, over all reports.
        refused: dict[str, str] = {}
        try:
            mailed = self._mail_owed(self.outbox(context), settings, connection, refused)
        except (Exception, AirflowTaskTimeout) as error:
            if not refused:
                raise
            # The reports that these addresses did not get are done: no later run names them.
            reason = str(error) if isinstance(error, FraudError) else f"{type(error).__name__}: see this task's log"
            raise RecipientsRefusedError(f"{self._refusal(refused)}. {reason}") from error
        if refused:
            raise RecipientsRefusedError(self._refusal(refused))
        return mailed

    def _mail_owed(
        self, outbox: ReportQueue, settings: Settings, connection: Connection, refused: dict[str, str]
    ) -> dict[str, int]:
        """Mail all that is owed, and add to `refused` whom the server refused for an accepted mail. Raises ReportError,
        at once where the server takes no mail."""
        mailed, failed, drops = {"reports": 0, "frauds": 0, "left_out": 0}, [], 0
        for report in outbox.pending_reports():
            began = time.monotonic()
            try:
                mail = self._mail(report, outbox, mask=settings.mask_cards)
            except (ReportError, StagingError) as error:
                failed.append(f"{report.key}: {error}")
                self.log.error("report %s was not sent: %s", report.key, error)
                drops = drops + 1 if isinstance(error, _DroppedError) else 0
                if drops == _DROPS:
                    raise ReportError(
                        f"{self._server} hangs up on every mail: {mailed['reports']} were sent, all others stay owed. "
                        f"{'; '.join(failed)}"
                    ) from error
                continue
            except _NO_SERVER as error:
                # No other report will pass either: fail at once. A retry, or the next run, sends what is owed.
                raise mail_failure(connection, error) from error
            if mail is None:
                self.log.info("report %s was sent by another task meanwhile", report.key)
                continue
            refused |= self._refused
            self._note(report, mail, outbox, settings.recipients, began)
            drops = 0
            mailed["reports"] += 1
            mailed["frauds"] += report.facts.frauds
            mailed["left_out"] += mail.left_out
        failed += [f"{key}: {reason}" for key, reason in outbox.unreadable().items()]
        if failed:
            raise ReportError(f"{len(failed)} reports stay owed, {mailed['reports']} were sent. {'; '.join(failed)}")
        return mailed

    def _note(
        self, report: PendingReport, mail: ReportMail, outbox: ReportQueue, recipients: tuple[str, ...], began: float
    ) -> None:
        """Note the delivery: nothing else may happen before it, for what is not noted is sent again."""
        taken = round(time.monotonic() - began, 3)
        accepted = tuple(one for one in recipients if one not in self._refused)
        outbox.record_delivery(report, ReportDelivery(mail.message_id, accepted, datetime.now(UTC), taken))
        self.log.info(
            "report %s sent as %s: %d frauds (%d not attached), %d recipients",
            report.key,
            mail.message_id,
            report.facts.frauds,
            mail.left_out,
            len(accepted),
        )
        if self._refused:
            self.log.error("report %s was not accepted for %s", report.key, listed(self._refused))

    def _refusal(self, refused: Mapping[str, str]) -> str:
        return (
            f"{self._server} refused {listed(refused)}. The reports went to the other addresses only, and are not "
            "sent again: correct EMAIL_RECIPIENT, or have the server accept the address"
        )

    def _set_addresses(self, settings: Settings) -> Connection:
        if not settings.recipients:
            raise SettingError("EMAIL_RECIPIENT names nobody: give the addresses that fraud reports go to")
        self.to = list(settings.recipients)
        connection = smtp_connection(self.conn_id)
        self.from_email = connection.extra_dejson["from_email"]
        self._server = f"{self.conn_id} ({address(connection)})"
        return connection

    def _mail(self, report: PendingReport, outbox: ReportQueue, *, mask: bool) -> ReportMail | None:
        """Build the mail and send it, smaller if the server finds it too large or hangs up. Return None where another
        task has sent it meanwhile. Raises ReportError, and StagingError where no attempt can be noted."""
        for max_bytes in ATTACHMENT_BYTES:
            mail = self._build(report, mask=mask, max_bytes=max_bytes)
            try:
                if not self._send(mail, report, outbox):
                    return None
            except (smtplib.SMTPServerDisconnected, *_REFUSALS) as error:
                # While a mail is sent, smtplib makes this of a time-out and of a connection reset, too.
                code = getattr(error, "smtp_code", None)
                if isinstance(error, smtplib.SMTPServerDisconnected) or code == _CLOSING:
                    if not max_bytes:
                        raise _DroppedError(f"{self._server} hung up on it ({type(error).__name__})") from error
                    self.log.warning("%s hung up: attaching less than %d bytes", self._server, max_bytes)
                    continue
                if code != _TOO_LARGE or not max_bytes:
                    answer = f"{type(error).__name__} {server_answer(error)}"
                    raise ReportError(f"{self._server} refused it ({answer})") from error
                self.log.warning("%s takes no mail of this size: attaching less than %d bytes", self._server, max_bytes)
            else:
                break
        return mail

    def _build(self, report: PendingReport, *, mask: bool, max_bytes: int) -> ReportMail:
        try:
            return build(report.facts, report.frauds, mask=mask, max_attachment_bytes=max_bytes)
        except FraudError as error:
            raise ReportError(f"cannot be built: {error}") from error
        except Exception as error:
            # The text of a foreign error may quote a payment: the log gets its place, and not its words.
            self.log.error("%s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            raise ReportError(f"cannot be built: {type(error).__name__}, see this task's log") from None

    def _send(self, mail: ReportMail, report: PendingReport, outbox: ReportQueue) -> bool:
        """Return False where another task has sent it. The server is there before the attempt is noted: one that is
        down fixes no report."""
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
    """A file of the attachment's name, for the hook attaches nothing else. Raises ReportError."""
    with ExitStack() as kept:
        try:
            path = Path(kept.enter_context(TemporaryDirectory()), ATTACHMENT)
            path.touch(mode=0o600)
            path.write_bytes(mail.csv)
        except OSError as error:
            raise ReportError(
                f"its attachment cannot be written to the temporary folder ({error.strerror}): make room there, or set "
                "TMPDIR to another folder"
            ) from error
        yield path
