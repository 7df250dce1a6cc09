"""The email operator with a real mail server."""

from __future__ import annotations

import csv
import gc
import io
import json
import runpy
import socket
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from fraud_scoring.report_operator import FraudReportOperator
from include.errors import RecipientsRefusedError, ReportError, StagingError
from include.report.fraud import Fraud
from include.report.incident import cause_and_detail
from include.report.report import PendingReport, ReportDelivery
from tests.plugins.conftest import Inbox, StartServer
from tests.report.test_report import facts, fraud


class Outbox:
    """A queue of reports in memory. tests/integration use the real one."""

    def __init__(self, *reports: PendingReport) -> None:
        self.pending = {report.key: report for report in reports}
        self.unread: dict[str, str] = {}
        self.inbox: Inbox | None = None
        self.deliveries: list[ReportDelivery] = []
        self.started: list[str] = []

    def pending_reports(self) -> Iterable[PendingReport]:
        return list(self.pending.values())

    def unreadable(self) -> dict[str, str]:
        return self.unread

    def begin_report(self, report: PendingReport) -> bool:
        self.started.append(report.key)
        return True

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        self.deliveries.append(delivery)
        if self.inbox is not None:
            assert len(self.inbox.messages) > 0
        del self.pending[report.key]


def report(key: str, frauds: Iterable[Fraud] | None = None, count: int = 1) -> PendingReport:
    number = int(key.strip("batch"))
    return PendingReport(
        key, facts(count, batch_id=key, ranges=(("topic_1", 0, number, number + 1),)), frauds or [fraud()]
    )


def send(outbox: Outbox) -> dict[str, int]:
    operator = FraudReportOperator(task_id="email", outbox=lambda context: outbox)
    return operator.execute({})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def recipients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst@bank.test, second@bank.test")


def attached(inbox: Inbox, number: int = 0) -> list[dict[str, str]]:
    (part,) = inbox.messages[number].iter_attachments()
    assert part.get_filename() == "fraud_detection_report.csv"
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_report_reaches_every_recipient_with_its_attachment(mail_server: StartServer) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1"))
    outbox.inbox = inbox
    assert send(outbox) == {"reports": 1, "frauds": 1, "left_out": 0}
    (message,) = inbox.messages
    assert inbox.recipients == [["analyst@bank.test", "second@bank.test"]]
    assert message["From"] == "fraud@bank.test"
    assert message["To"] == "analyst@bank.test, second@bank.test"
    assert message["Subject"] == "Security alert - Fraud detected: 1 payment, batch batch1"
    body = message.get_body()
    assert body is not None
    assert "455612*********2345" in body.get_content()
    assert attached(inbox)[0]["cc_num"] == "455612*********2345"
    assert outbox.pending == {}
    (delivery,) = outbox.deliveries
    assert (delivery.message_id, list(delivery.recipients)) == (message["Message-ID"], inbox.recipients[0])
    assert 0 < delivery.seconds < 60
    assert datetime.now(UTC) - delivery.at < timedelta(minutes=1)


def test_unreadable_batch_does_not_keep_other_reports_back(mail_server: StartServer) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1"))
    outbox.unread = {"batch0": "its manifest is damaged"}
    with pytest.raises(ReportError, match=r"1 reports stay pending, 1 were sent\. batch0: its manifest is damaged"):
        send(outbox)
    assert len(inbox.messages) == 1
    assert outbox.pending == {}


def test_each_copy_of_a_report_has_the_same_message_id(mail_server: StartServer) -> None:
    inbox = mail_server()
    send(Outbox(report("batch1")))
    send(Outbox(report("batch1")))
    first, again = inbox.messages
    assert len(first.get_all("Message-ID", [])) == len(first.get_all("Date", [])) == 1
    assert first["Message-ID"] == again["Message-ID"]
    assert first["Message-ID"].startswith("<fraud-report.")


def test_card_numbers_are_shown_if_set(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_MASK_CARDS", "false")
    send(Outbox(report("batch1")))
    assert attached(inbox)[0]["cc_num"] == "4556123412349012345"


def test_report_is_sent_over_starttls_with_a_login(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    inbox = mail_server(tls=True, login="fraud", password="secret")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(Outbox(report("batch1")))
    assert (inbox.logins, inbox.encrypted) == (["fraud"], [True])


def test_server_with_untrusted_certificate_gets_no_mail(mail_server: StartServer) -> None:
    inbox = mail_server(tls=True, login="fraud", password="secret")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match=r"the certificate of smtp_default .* is not trusted"):
        send(outbox)
    assert (inbox.messages, list(outbox.pending)) == ([], ["batch1"])


# The hook leaves its socket to the garbage collector when the login fails.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_wrong_password_fails_the_task_and_is_not_shown(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    mail_server(tls=True, login="fraud", password="wr0ng")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(AirflowFailException, match=r"smtp_default .* rejects the login fraud: 535 5\.7\.8") as error:
        send(Outbox(report("batch1")))
    assert "wr0ng" not in str(error.value)
    del error
    gc.collect()


def test_all_reports_stay_pending_while_the_server_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": {"from_email": "f@bank.test"}}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        outbox = Outbox(report("batch1"), report("batch2"))
        with pytest.raises(
            ReportError, match=rf"smtp_default .127.0.0.1:{port}. accepts no mail .ConnectionRefusedError"
        ):
            send(outbox)
    assert list(outbox.pending) == ["batch1", "batch2"]


def test_refused_report_stays_pending_and_others_are_sent(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 looks like spam"]
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(
        ReportError, match=r"1 reports stay pending, 1 were sent. batch1: .* refused the mail .SMTPDataError 554"
    ):
        send(outbox)
    assert list(outbox.pending) == ["batch1"]
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2"]


def test_report_stays_pending_if_all_recipients_are_refused(mail_server: StartServer) -> None:
    inbox = mail_server()
    inbox.refused_recipients = dict.fromkeys(["analyst@bank.test", "second@bank.test"], "550 unknown")
    outbox = Outbox(report("batch1"))
    with pytest.raises(ReportError, match="SMTPRecipientsRefused"):
        send(outbox)
    assert list(outbox.pending) == ["batch1"]


def test_refused_recipient_is_named_and_not_recorded(mail_server: StartServer) -> None:
    inbox = mail_server()
    inbox.refused_recipients = {"second@bank.test": "550 5.1.1 no such user here"}
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(ReportError, match=r"refused second@bank.test \(550 5.1.1 no such user here\)") as error:
        send(outbox)
    assert str(error.value).count("second@bank.test") == 1
    assert "correct EMAIL_RECIPIENT" in str(error.value)
    assert [delivery.recipients for delivery in outbox.deliveries] == [("analyst@bank.test",)] * 2
    assert outbox.pending == {}
    inbox.refused_recipients = {}
    outbox = Outbox(report("batch3"))
    assert send(outbox)["reports"] == 1
    assert outbox.deliveries[0].recipients == ("analyst@bank.test", "second@bank.test")


class OutageAfterFirst(Outbox):
    """A queue that breaks once the first report is delivered."""

    def __init__(self, outage: Callable[[], object]) -> None:
        super().__init__(*(report(f"batch{number}") for number in (1, 2, 3)))
        self.outage = outage

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        super().record_delivery(report, delivery)
        if len(self.deliveries) == 1:
            self.outage()


def _lose_staging_area() -> None:
    raise StagingError("cannot list outbox (the disk is gone)")


def _time_out() -> None:
    raise AirflowTaskTimeout("Timeout, PID: 1")


@pytest.mark.parametrize(
    ("outage", "expected"),
    [
        ("stop", "smtp_default .* accepts no mail .ConnectionRefusedError"),
        ("hang_up", "closes the connection during every mail: 1 reports were sent, all others stay pending"),
        ("refuse", "2 reports stay pending, 1 were sent. batch2: "),
        ("lose_staging_area", "cannot list outbox"),
        ("time_out", "AirflowTaskTimeout: see this task's log"),
    ],
)
def test_refused_recipient_is_named_if_a_later_report_fails(
    mail_server: StartServer, outage: str, expected: str
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refused_recipients = {"second@bank.test": "550 5.1.1 no such user here"}
    outages: dict[str, Callable[[], object]] = {
        "stop": inbox.stop,
        "hang_up": partial(hang_up, inbox, "batch2", "batch3"),
        "refuse": partial(inbox.refusals.extend, ["554 looks like spam"] * 2),
        "lose_staging_area": _lose_staging_area,
        "time_out": _time_out,
    }
    outbox = OutageAfterFirst(outages[outage])
    with pytest.raises(RecipientsRefusedError, match=expected) as error:
        send(outbox)
    assert list(outbox.pending) == ["batch2", "batch3"]
    cause, detail = cause_and_detail(error.value)
    assert cause == "RecipientsRefusedError"
    assert "refused second@bank.test (550 5.1.1 no such user here)" in detail


def test_no_mail_is_sent_before_its_attempt_is_recorded(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1"), report("batch2"))
    begin_report = Outbox.begin_report

    def fail_for_batch1(self: Outbox, pending: PendingReport) -> bool:
        assert len(inbox.messages) == len(self.started)
        if pending.key == "batch1":
            raise StagingError("cannot write report-0.json (the disk is full)")
        return begin_report(self, pending)

    monkeypatch.setattr(Outbox, "begin_report", fail_for_batch1)
    with pytest.raises(ReportError, match=r"1 reports stay pending, 1 were sent. batch1: cannot write report-0.json"):
        send(outbox)
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2"]


def test_no_attempt_is_recorded_while_the_server_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later commits of the batch can still go into the same report."""
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "extra": {"from_email": "f@bank.test"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    outbox = Outbox(report("batch1"))
    with pytest.raises(ReportError):
        send(outbox)
    assert outbox.started == []


def test_report_that_another_task_has_sent_is_not_sent_again(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    monkeypatch.setattr(Outbox, "begin_report", lambda self, pending: False)
    assert send(Outbox(report("batch1")))["reports"] == 0
    assert inbox.messages == []


def test_unwritable_temporary_folder_is_named(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mail_server()
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(ReportError, match=r"batch1: the attachment cannot be written to the temporary folder"):
        send(Outbox(report("batch1")))


def test_domains_beyond_ascii_are_encoded_by_idna(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server(extra={"from_email": "Betrugsprüfung <fraud@bänk.test>"})
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst@bänk.test; Jörg <j@straße.test>")
    outbox = Outbox(report("batch1"))
    send(outbox)
    (message,) = inbox.messages
    assert inbox.recipients == [["analyst@xn--bnk-qla.test", "j@xn--strae-oqa.test"]]
    assert inbox.senders == ["fraud@xn--bnk-qla.test"]
    assert message["From"].addresses[0].addr_spec == "fraud@xn--bnk-qla.test"
    assert message["From"].addresses[0].display_name == "Betrugsprüfung"
    assert outbox.deliveries[0].recipients == tuple(inbox.recipients[0])


def test_error_has_the_servers_reply_without_card_numbers(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 5.7.1 card 4556123412349012345 found, policy 17"]
    with pytest.raises(ReportError, match=r"SMTPDataError 554 5.7.1 card … found, policy 17\)"):
        send(Outbox(report("batch1")))
    inbox.refused_recipients = dict.fromkeys(["analyst@bank.test", "second@bank.test"], "550 5.1.1 unknown")
    with pytest.raises(ReportError, match=r"analyst@bank.test: 550 5.1.1 unknown, second@bank.test: 550 5.1.1"):
        send(Outbox(report("batch1")))


def test_mail_that_is_too_large_for_the_server_is_sent_smaller(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server(data_size_limit=60_000)
    monkeypatch.setattr("fraud_scoring.report_operator.ATTACHMENT_BYTES", (100_000, 10_000, 0))
    frauds = [fraud(number, number / 1000) for number in range(1000)]
    assert send(Outbox(report("batch1", frauds, 1000)))["left_out"] == 1000 - len(attached(inbox))
    assert attached(inbox)[0]["source"] == "topic_1/0/999"


def hang_up(inbox: Inbox, *batches: str, above: int = 0) -> list[int]:
    """Close the connection during mails of these batches, if they exceed `above` bytes.

    Return a list to which the sizes of these mails are appended.
    """
    take, sizes = inbox.handle_DATA, []

    async def handle_data(server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        if len(content) > above and any(f"batch {batch}\r\n".encode() in content for batch in batches):
            sizes.append(len(content))
            assert server.transport is not None
            server.transport.abort()
            return "451 the client does not read this"
        return await take(server, session, envelope)

    inbox.handle_DATA = handle_data  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize("retry_limit", [0, 1])
def test_dropped_mail_does_not_keep_other_reports_back(mail_server: StartServer, retry_limit: int) -> None:
    inbox = mail_server(extra={"retry_limit": retry_limit})
    sizes = hang_up(inbox, "batch1", "batch3")
    outbox = Outbox(*(report(f"batch{number}") for number in (1, 2, 3, 4)))
    with pytest.raises(
        ReportError, match=r"2 reports stay pending, 2 were sent. batch1: .* closed .*; batch3: .* closed"
    ):
        send(outbox)
    assert list(outbox.pending) == ["batch1", "batch3"]
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2", "batch4"]
    assert len(sizes) == 6


def test_reply_421_counts_as_a_closed_connection(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["421 closing"] * 3
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(ReportError, match=r"batch1: .* closed the connection during the mail .SMTPDataError"):
        send(outbox)
    assert list(outbox.pending) == ["batch1"]


def test_dropped_mail_is_sent_smaller(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    hang_up(inbox, "batch1", above=60_000)
    monkeypatch.setattr("fraud_scoring.report_operator.ATTACHMENT_BYTES", (100_000, 10_000, 0))
    frauds = [fraud(number, number / 1000) for number in range(1000)]
    assert 0 < send(Outbox(report("batch1", frauds, 1000)))["left_out"] == 1000 - len(attached(inbox))


def test_no_more_mails_are_sent_after_two_drops_in_a_row(mail_server: StartServer) -> None:
    inbox = mail_server()
    sizes = hang_up(inbox, "batch2", "batch3", "batch4")
    outbox = Outbox(*(report(f"batch{number}") for number in (1, 2, 3, 4)))
    with pytest.raises(ReportError, match="closes the connection during every mail: 1 reports were sent, all others"):
        send(outbox)
    assert list(outbox.pending) == ["batch2", "batch3", "batch4"]
    assert len(sizes) == 6


def test_email_task_has_a_timeout_and_no_retries() -> None:
    names = runpy.run_path(str(Path(__file__).parents[2] / "dags" / "score_payments.py"))
    task = names["score_payments"]().get_task("email")
    assert task.retries == 0
    assert task.execution_timeout <= timedelta(seconds=90)


class Damaged:
    def __iter__(self) -> Any:
        raise StagingError("predictions.parquet is gone")


class Crashing:
    def __iter__(self) -> Any:
        raise ValueError(fraud().record)


def test_report_that_cannot_be_built_does_not_keep_others_back(
    mail_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1", Damaged()), report("batch2", Crashing()), report("batch3"))
    with pytest.raises(ReportError) as error:
        send(outbox)
    assert "batch1: the mail cannot be built: predictions.parquet is gone" in str(error.value)
    assert "batch2: the mail cannot be built: ValueError" in str(error.value)
    assert list(outbox.pending) == ["batch1", "batch2"]
    assert len(inbox.messages) == 1
    # Neither the error nor the log quotes the payment, but the log has the traceback.
    chain: BaseException | None = error.value
    while chain is not None:
        assert "4556" not in str(chain)
        chain = chain.__cause__
    log = "".join(capsys.readouterr())
    assert "4556" not in log
    assert "in __iter__" in log


def test_missing_recipients_fail_the_task_without_retries(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail_server()
    monkeypatch.setenv("EMAIL_RECIPIENT", "")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match="EMAIL_RECIPIENT is empty"):
        send(outbox)
    assert list(outbox.pending) == ["batch1"]


def test_invalid_recipient_fails_the_task_without_retries(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail_server()
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst.bank.test")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match=r"EMAIL_RECIPIENT='analyst.bank.test'"):
        send(outbox)
    assert list(outbox.pending) == ["batch1"]


def test_missing_sender_is_named(mail_server: StartServer) -> None:
    mail_server(extra={"from_email": None})
    with pytest.raises(AirflowFailException, match="connection smtp_default names no sender: add from_email"):
        send(Outbox(report("batch1")))


def test_missing_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    with pytest.raises(AirflowFailException, match="AIRFLOW_CONN_SMTP_DEFAULT"):
        send(Outbox(report("batch1")))


def test_attachment_is_deleted_from_disk(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 no"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ReportError):
        send(Outbox(report("batch1"), report("batch2")))
    assert len(inbox.messages) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_part_of_a_mail_is_a_template_field() -> None:
    assert tuple(FraudReportOperator.template_fields) == ("conn_id",)
    assert tuple(FraudReportOperator.template_ext) == ()
