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
from include.report.incident import describe
from include.report.report import PendingReport, ReportDelivery
from tests.plugins.conftest import Inbox, StartServer
from tests.report.test_report import facts, fraud


class Outbox:
    """Keeps its reports in memory; the real one is tried with the whole DAG."""

    def __init__(self, *reports: PendingReport) -> None:
        self.waiting = {report.key: report for report in reports}
        self.unread: dict[str, str] = {}
        self.inbox: Inbox | None = None
        self.deliveries: list[ReportDelivery] = []
        self.begun: list[str] = []

    def pending_reports(self) -> Iterable[PendingReport]:
        return list(self.waiting.values())

    def unreadable(self) -> dict[str, str]:
        return self.unread

    def begin_report(self, report: PendingReport) -> bool:
        self.begun.append(report.key)
        return True

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        self.deliveries.append(delivery)
        if self.inbox is not None:
            assert len(self.inbox.messages) > 0
        del self.waiting[report.key]


def report(key: str, frauds: Iterable[Fraud] | None = None, count: int = 1) -> PendingReport:
    number = int(key.strip("batch"))
    return PendingReport(
        key, facts(count, batch_id=key, ranges=(("topic_1", 0, number, number + 1),)), frauds or [fraud()]
    )


def send(outbox: Outbox) -> dict[str, int]:
    operator = FraudReportOperator(task_id="email", outbox=lambda context: outbox)
    return operator.execute({})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _recipients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst@bank.test, second@bank.test")


def attached(inbox: Inbox, number: int = 0) -> list[dict[str, str]]:
    (part,) = inbox.messages[number].iter_attachments()
    assert part.get_filename() == "fraud_detection_report.csv"
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_a_report_reaches_every_recipient_with_its_attachment(mail_server: StartServer) -> None:
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
    assert outbox.waiting == {}
    (delivery,) = outbox.deliveries
    assert (delivery.message_id, list(delivery.recipients)) == (message["Message-ID"], inbox.recipients[0])
    assert 0 < delivery.seconds < 60
    assert datetime.now(UTC) - delivery.at < timedelta(minutes=1)


def test_a_batch_that_cannot_be_read_is_no_reason_to_keep_the_others_back(mail_server: StartServer) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1"))
    outbox.unread = {"batch0": "its manifest is damaged"}
    with pytest.raises(ReportError, match=r"1 reports stay owed, 1 were sent\. batch0: its manifest is damaged"):
        send(outbox)
    assert len(inbox.messages) == 1
    assert outbox.waiting == {}


def test_one_message_id_and_one_date_the_same_id_each_time(mail_server: StartServer) -> None:
    inbox = mail_server()
    send(Outbox(report("batch1")))
    send(Outbox(report("batch1")))
    first, again = inbox.messages
    assert len(first.get_all("Message-ID", [])) == len(first.get_all("Date", [])) == 1
    assert first["Message-ID"] == again["Message-ID"]
    assert first["Message-ID"].startswith("<fraud-report.")


def test_the_setting_shows_card_numbers(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_MASK_CARDS", "false")
    send(Outbox(report("batch1")))
    assert attached(inbox)[0]["cc_num"] == "4556123412349012345"


def test_starttls_and_login(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    inbox = mail_server(tls=True, login="fraud", password="secret")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(Outbox(report("batch1")))
    assert (inbox.logins, inbox.encrypted) == (["fraud"], [True])


def test_a_certificate_that_nobody_trusts_gets_no_mail(mail_server: StartServer) -> None:
    inbox = mail_server(tls=True, login="fraud", password="secret")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match=r"the certificate of smtp_default .* is not trusted"):
        send(outbox)
    assert (inbox.messages, list(outbox.waiting)) == ([], ["batch1"])


# The hook leaves its socket to the garbage collector when the login fails.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_wrong_password_is_said_and_not_shown(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    mail_server(tls=True, login="fraud", password="wr0ng")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(AirflowFailException, match=r"smtp_default .* refuses fraud: 535 5\.7\.8") as error:
        send(Outbox(report("batch1")))
    assert "wr0ng" not in str(error.value)
    del error
    gc.collect()


def test_a_server_that_is_down_owes_everything_and_fails_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": {"from_email": "f@bank.test"}}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        outbox = Outbox(report("batch1"), report("batch2"))
        with pytest.raises(
            ReportError, match=rf"smtp_default .127.0.0.1:{port}. takes no mail .ConnectionRefusedError"
        ):
            send(outbox)
    assert list(outbox.waiting) == ["batch1", "batch2"]


def test_a_refused_mail_stays_owed_and_the_others_are_sent(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 looks like spam"]
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(
        ReportError, match=r"1 reports stay owed, 1 were sent. batch1: .* refused it .SMTPDataError 554"
    ):
        send(outbox)
    assert list(outbox.waiting) == ["batch1"]
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2"]


def test_refused_recipients_leave_it_owed(mail_server: StartServer) -> None:
    inbox = mail_server()
    inbox.refused_recipients = dict.fromkeys(["analyst@bank.test", "second@bank.test"], "550 unknown")
    outbox = Outbox(report("batch1"))
    with pytest.raises(ReportError, match="SMTPRecipientsRefused"):
        send(outbox)
    assert list(outbox.waiting) == ["batch1"]


def test_a_refused_recipient_is_not_recorded_as_mailed_and_is_named(mail_server: StartServer) -> None:
    inbox = mail_server()
    inbox.refused_recipients = {"second@bank.test": "550 5.1.1 no such user here"}
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(ReportError, match=r"refused second@bank.test \(550 5.1.1 no such user here\)") as error:
        send(outbox)
    assert str(error.value).count("second@bank.test") == 1
    assert "correct EMAIL_RECIPIENT" in str(error.value)
    assert [delivery.recipients for delivery in outbox.deliveries] == [("analyst@bank.test",)] * 2
    assert outbox.waiting == {}
    inbox.refused_recipients = {}
    outbox = Outbox(report("batch3"))
    assert send(outbox)["reports"] == 1
    assert outbox.deliveries[0].recipients == ("analyst@bank.test", "second@bank.test")


class OutageAfterFirst(Outbox):
    """Something breaks once the first report is noted."""

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
    ("outage", "why"),
    [
        ("stop", "smtp_default .* takes no mail .ConnectionRefusedError"),
        ("hang_up", "hangs up on every mail: 1 were sent, all others stay owed"),
        ("refuse", "2 reports stay owed, 1 were sent. batch2: "),
        ("lose_staging_area", "cannot list outbox"),
        ("time_out", "AirflowTaskTimeout: see this task's log"),
    ],
)
def test_a_refused_recipient_is_named_though_a_later_report_fails(
    mail_server: StartServer, outage: str, why: str
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
    with pytest.raises(RecipientsRefusedError, match=why) as error:
        send(outbox)
    assert list(outbox.waiting) == ["batch2", "batch3"]
    cause, detail = describe(error.value)
    assert cause == "RecipientsRefusedError"
    assert "refused second@bank.test (550 5.1.1 no such user here)" in detail


def test_an_attempt_is_noted_before_each_mail_and_none_is_sent_without(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1"), report("batch2"))
    begin_report = Outbox.begin_report

    def cannot_be_noted(self: Outbox, owed: PendingReport) -> bool:
        assert len(inbox.messages) == len(self.begun)
        if owed.key == "batch1":
            raise StagingError("cannot write report-0.json (the disk is full)")
        return begin_report(self, owed)

    monkeypatch.setattr(Outbox, "begin_report", cannot_be_noted)
    with pytest.raises(ReportError, match=r"1 reports stay owed, 1 were sent. batch1: cannot write report-0.json"):
        send(outbox)
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2"]


def test_a_server_that_is_down_begins_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed until it is back goes into the same report."""
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "extra": {"from_email": "f@bank.test"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    outbox = Outbox(report("batch1"))
    with pytest.raises(ReportError):
        send(outbox)
    assert outbox.begun == []


def test_a_report_that_another_task_has_sent_meanwhile_is_left(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    monkeypatch.setattr(Outbox, "begin_report", lambda self, owed: False)
    assert send(Outbox(report("batch1")))["reports"] == 0
    assert inbox.messages == []


def test_a_temporary_folder_that_is_full_is_not_called_a_mail_server_that_is_down(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mail_server()
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(ReportError, match=r"batch1: its attachment cannot be written to the temporary folder"):
        send(Outbox(report("batch1")))


def test_addresses_beyond_ascii_are_mailed_by_idna(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_server_s_own_sentence_says_why_it_refuses_a_mail(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 5.7.1 card 4556123412349012345 found, policy 17"]
    with pytest.raises(ReportError, match=r"SMTPDataError 554 5.7.1 card … found, policy 17\)"):
        send(Outbox(report("batch1")))
    inbox.refused_recipients = dict.fromkeys(["analyst@bank.test", "second@bank.test"], "550 5.1.1 unknown")
    with pytest.raises(ReportError, match=r"analyst@bank.test: 550 5.1.1 unknown, second@bank.test: 550 5.1.1"):
        send(Outbox(report("batch1")))


def test_what_is_too_large_for_the_server_is_sent_smaller(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server(data_size_limit=60_000)
    monkeypatch.setattr("fraud_scoring.report_operator.ATTACHMENT_BYTES", (100_000, 10_000, 0))
    frauds = [fraud(number, number / 1000) for number in range(1000)]
    assert send(Outbox(report("batch1", frauds, 1000)))["left_out"] == 1000 - len(attached(inbox))
    assert attached(inbox)[0]["source"] == "topic_1/0/999"


def hang_up(inbox: Inbox, *batches: str, above: int = 0) -> list[int]:
    """On mails of these batches that are larger than `above` bytes; says how large they were."""
    take, sizes = inbox.handle_DATA, []

    async def handle_data(server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        if len(content) > above and any(f"batch {batch}\r\n".encode() in content for batch in batches):
            sizes.append(len(content))
            assert server.transport is not None
            server.transport.abort()
            return "451 not heard by anybody"
        return await take(server, session, envelope)

    inbox.handle_DATA = handle_data  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize("retry_limit", [0, 1])
def test_a_mail_on_which_the_server_hangs_up_holds_back_no_other(mail_server: StartServer, retry_limit: int) -> None:
    inbox = mail_server(extra={"retry_limit": retry_limit})
    sizes = hang_up(inbox, "batch1", "batch3")
    outbox = Outbox(*(report(f"batch{number}") for number in (1, 2, 3, 4)))
    with pytest.raises(
        ReportError, match=r"2 reports stay owed, 2 were sent. batch1: .* hung up .*; batch3: .* hung up"
    ):
        send(outbox)
    assert list(outbox.waiting) == ["batch1", "batch3"]
    assert [message["Subject"][-6:] for message in inbox.messages] == ["batch2", "batch4"]
    assert len(sizes) == 6


def test_a_server_that_closes_politely_has_hung_up_too(mail_server: StartServer) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["421 closing"] * 3
    outbox = Outbox(report("batch1"), report("batch2"))
    with pytest.raises(ReportError, match=r"batch1: .* hung up on it .SMTPDataError"):
        send(outbox)
    assert list(outbox.waiting) == ["batch1"]


def test_what_the_server_hangs_up_on_is_sent_smaller(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    hang_up(inbox, "batch1", above=60_000)
    monkeypatch.setattr("fraud_scoring.report_operator.ATTACHMENT_BYTES", (100_000, 10_000, 0))
    frauds = [fraud(number, number / 1000) for number in range(1000)]
    assert 0 < send(Outbox(report("batch1", frauds, 1000)))["left_out"] == 1000 - len(attached(inbox))


def test_a_server_that_hangs_up_on_every_mail_is_left_alone(mail_server: StartServer) -> None:
    inbox = mail_server()
    sizes = hang_up(inbox, "batch2", "batch3", "batch4")
    outbox = Outbox(*(report(f"batch{number}") for number in (1, 2, 3, 4)))
    with pytest.raises(ReportError, match="hangs up on every mail: 1 were sent, all others stay owed"):
        send(outbox)
    assert list(outbox.waiting) == ["batch2", "batch3", "batch4"]
    assert len(sizes) == 6


def test_a_server_that_hangs_does_not_keep_the_next_run_waiting() -> None:
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


def test_a_report_that_cannot_be_built_holds_back_no_other(
    mail_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox = mail_server()
    outbox = Outbox(report("batch1", Damaged()), report("batch2", Crashing()), report("batch3"))
    with pytest.raises(ReportError) as error:
        send(outbox)
    assert "batch1: cannot be built: predictions.parquet is gone" in str(error.value)
    assert "batch2: cannot be built: ValueError" in str(error.value)
    assert list(outbox.waiting) == ["batch1", "batch2"]
    assert len(inbox.messages) == 1
    # Nothing quotes the payment, neither the error nor the log; but the log says where it happened.
    chain: BaseException | None = error.value
    while chain is not None:
        assert "4556" not in str(chain)
        chain = chain.__cause__
    log = "".join(capsys.readouterr())
    assert "4556" not in log
    assert "in __iter__" in log


def test_nobody_to_mail_to_fails_the_task_for_good(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    mail_server()
    monkeypatch.setenv("EMAIL_RECIPIENT", "")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match="EMAIL_RECIPIENT names nobody"):
        send(outbox)
    assert list(outbox.waiting) == ["batch1"]


def test_an_address_that_is_none_fails_the_task_for_good(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail_server()
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst.bank.test")
    outbox = Outbox(report("batch1"))
    with pytest.raises(AirflowFailException, match=r"EMAIL_RECIPIENT='analyst.bank.test'"):
        send(outbox)
    assert list(outbox.waiting) == ["batch1"]


def test_a_connection_without_a_sender_says_which_field(mail_server: StartServer) -> None:
    mail_server(extra={"from_email": None})
    with pytest.raises(AirflowFailException, match="connection smtp_default names no sender: add from_email"):
        send(Outbox(report("batch1")))


def test_no_connection_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    with pytest.raises(AirflowFailException, match="AIRFLOW_CONN_SMTP_DEFAULT"):
        send(Outbox(report("batch1")))


def test_no_copy_of_the_attachment_stays_on_disk(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["554 no"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ReportError):
        send(Outbox(report("batch1"), report("batch2")))
    assert len(inbox.messages) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_a_mail_is_a_template_field() -> None:
    assert tuple(FraudReportOperator.template_fields) == ("conn_id",)
    assert tuple(FraudReportOperator.template_ext) == ()
