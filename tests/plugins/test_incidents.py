"""Mails to operators about failures, late runs and alarms, sent to a real mail server."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from fraud_scoring import alarm_mails, callback_context, incident_store, incidents
from fraud_scoring.airflow_connections import staging
from fraud_scoring.alarm_mails import mail_alarms
from fraud_scoring.incidents import IncidentNotifier, close_incident, late_run, late_run_alert
from include.batch import alarm_texts
from include.errors import (
    ClusterError,
    HousekeepingError,
    LedgerGapError,
    ModelNotFoundError,
    SettingError,
    StagingError,
)
from include.settings import Settings
from include.storage.staging import Storage
from tests.plugins.conftest import Inbox, StartServer
from tests.support.live_stack import LiveStack

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@dataclass
class TaskInstance:
    """The attributes of Airflow's task instance that a callback reads."""

    task_id: str = "publish"
    map_index: int | None = -1
    run_id: str = "scheduled__2026-11-24T08:00:00+00:00"
    dag_id: str = "score_payments"
    try_number: int = 3
    log_url: str = "https://airflow.test/dags/score_payments/runs/1/tasks/publish?try_number=3"
    alarms: list[dict[str, str]] | None = None

    def xcom_pull(self, task_ids: str, key: str) -> list[dict[str, str]] | None:
        assert (task_ids, key) == (self.task_id, "alarms")
        return self.alarms


class Clock(datetime):
    """`datetime` with a `now` that the test sets."""

    moment = START

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "ops@bank.test; night@bank.test")
    monkeypatch.setenv("FRAUD_STAGING_URL", str(tmp_path / "staging"))
    monkeypatch.setenv("FRAUD_REMINDER_HOURS", "6")
    monkeypatch.setattr(incident_store, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(callback_context, "datetime", Clock)
    monkeypatch.setattr(alarm_mails, "datetime", Clock)
    Clock.moment = START


def fail(error: BaseException | None, *, minutes: float = 1, **task: Any) -> None:
    Clock.moment += timedelta(minutes=minutes)
    context: dict[str, Any] = {"ti": TaskInstance(**task)}
    if error is not None:
        context["exception"] = error
    IncidentNotifier()(context)


def succeed(**task: Any) -> None:
    close_incident({"ti": TaskInstance(**task)})  # type: ignore[typeddict-item]


def body(message: EmailMessage) -> str:
    part = message.get_body()
    assert part is not None
    return str(part.get_content())


BROKER_DOWN = ClusterError("no broker answers at kafka:9092")


def test_mail_names_dag_task_cause_run_try_and_log_url(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    (message,) = inbox.messages
    assert inbox.recipients == [["ops@bank.test", "night@bank.test"]]
    assert message["Subject"] == "score_payments: publish failed: ClusterError, no broker answers at kafka:9092"
    html = body(message)
    assert "scheduled__2026-11-24T08:00:00+00:00" in html
    assert 'href="https://airflow.test/dags/score_payments/runs/1/tasks/publish?try_number=3"' in html
    assert ">3</td>" in html
    assert "No payment is lost" in html


def test_mail_has_the_dags_own_text_about_what_follows(mail_server: StartServer) -> None:
    inbox = mail_server()
    ti = TaskInstance(task_id="trim_logs", dag_id="housekeeping")
    notifier = IncidentNotifier(task_next="The next run is tomorrow's.")
    notifier({"ti": ti, "exception": HousekeepingError("1 files of /logs cannot be removed")})
    (message,) = inbox.messages
    assert message["Subject"].startswith(
        "housekeeping: trim_logs failed: HousekeepingError, 1 files of /logs cannot be"
    )
    assert "The next run is tomorrow" in body(message)
    assert "No payment is lost" not in body(message)


def test_same_cause_is_mailed_once(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(5):
        fail(BROKER_DOWN)
    assert len(inbox.messages) == 1


def test_reminder_has_start_and_number_of_failures(mail_server: StartServer) -> None:
    inbox = mail_server()
    for minutes in (1, 1, 357, 3, 1):
        fail(BROKER_DOWN, minutes=minutes)
    assert len(inbox.messages) == 2
    assert inbox.messages[1]["Subject"].startswith("Reminder: score_payments: publish failed")
    assert "Failing since 2026-11-24 08:01:00 UTC, 4 times so far" in body(inbox.messages[1])


def test_new_cause_is_mailed(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail(ModelNotFoundError("no run has a model"))
    fail(ModelNotFoundError("no run has a model"))
    assert [message["Subject"][:60] for message in inbox.messages] == [
        "score_payments: publish failed: ClusterError, no broker answ",
        "score_payments: publish failed: ModelNotFoundError, no run h",
    ]


def test_failure_of_another_task_is_mailed(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail(BROKER_DOWN, task_id="drain")
    assert len(inbox.messages) == 2


def test_failure_after_a_success_is_a_new_incident(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    succeed()
    fail(BROKER_DOWN)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]
    assert inbox.messages[0]["Message-ID"].startswith("<fraud-incident.")


def test_success_of_any_instance_closes_incident_of_unmapped_task(mail_server: StartServer) -> None:
    """An earlier version ran a batch of one shard in unmapped tasks."""
    inbox = mail_server()
    fail(BROKER_DOWN)
    succeed(map_index=0)
    fail(BROKER_DOWN, map_index=0)
    assert len(inbox.messages) == 2


def test_success_of_another_map_index_closes_no_incident(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN, map_index=1)
    succeed(map_index=0)
    fail(BROKER_DOWN, map_index=1)
    assert len(inbox.messages) == 1
    succeed(map_index=1)
    fail(BROKER_DOWN, map_index=1)
    assert len(inbox.messages) == 2


def subjects(inbox: Inbox) -> list[str]:
    return [message["Subject"] for message in inbox.messages]


def test_alternating_causes_are_mailed_once_each(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(60):
        fail(BROKER_DOWN)
        fail(ModelNotFoundError("no run has a model"))
    assert len(inbox.messages) == 2
    fail(BROKER_DOWN, minutes=300)
    assert subjects(inbox)[2].startswith("Reminder: score_payments: publish failed: ClusterError")
    assert "Failing since 2026-11-24 08:01:00 UTC, 61 times so far" in body(inbox.messages[2])


def test_one_task_causes_at_most_two_mails_an_hour(mail_server: StartServer) -> None:
    """Either each failure has a new cause, or one cause comes and goes."""
    inbox = mail_server()
    for number in range(120):
        fail(type(f"Error{number}", (ClusterError,), {})("no broker answers"))
    assert len(inbox.messages) == 4
    for _ in range(30):
        succeed(task_id="drain")
        fail(BROKER_DOWN, minutes=2, task_id="drain")
    assert len(inbox.messages) == 6


def test_failure_beyond_the_limit_is_mailed_after_the_hour(mail_server: StartServer) -> None:
    inbox = mail_server()
    for error in (BROKER_DOWN, StagingError("the disk is full"), ModelNotFoundError("no run has a model")):
        fail(error)
    assert len(inbox.messages) == 2
    fail(ModelNotFoundError("no run has a model"), minutes=60)
    assert subjects(inbox)[2].startswith("score_payments: publish failed: ModelNotFoundError")


class UnmailedError(ClusterError):
    pass


def test_unmailed_cause_of_closed_incident_is_mailed_with_the_next_failure(mail_server: StartServer) -> None:
    inbox = mail_server()
    for error in (
        BROKER_DOWN,
        StagingError("the disk is full"),
        UnmailedError("first"),
        UnmailedError("second"),
    ):
        fail(error, minutes=2)
        succeed()
    fail(ModelNotFoundError("no run has a model"), minutes=86)
    fail(ModelNotFoundError("no run has a model"))
    assert [subject.split(": ")[2].split(",")[0] for subject in subjects(inbox)] == [
        "ClusterError",
        "StagingError",
        "ModelNotFoundError",
    ]
    assert "UnmailedError, 2 times, since 2026-11-24 08:06:00 UTC: second" in body(inbox.messages[2])
    succeed()
    fail(BROKER_DOWN)
    assert "UnmailedError" not in body(inbox.messages[3])


def test_unmailed_cause_of_open_incident_is_mailed_with_the_next_failure(
    mail_server: StartServer,
) -> None:
    inbox = mail_server()
    for error in (BROKER_DOWN, StagingError("the disk is full"), UnmailedError("first"), BROKER_DOWN):
        fail(error)
    assert len(inbox.messages) == 2
    fail(BROKER_DOWN, minutes=60)
    fail(BROKER_DOWN, minutes=60)
    assert len(inbox.messages) == 3
    assert "UnmailedError, once, since 2026-11-24 08:03:00 UTC: first" in body(inbox.messages[2])


def test_dozens_of_unmailed_causes_are_counted_in_one_mail(mail_server: StartServer) -> None:
    inbox = mail_server()
    for number in range(58):
        fail(type(f"Error{number}", (ClusterError,), {})("no broker answers"))
        if number % 2:
            succeed()
    fail(BROKER_DOWN, minutes=60)
    html = body(inbox.messages[2])
    # Two were mailed, twenty are named.
    assert "other causes, 36 times, since 2026-11-24 08:03:00 UTC" in html
    assert html.count("once, since") == 20
    assert "Error57, once, since" in html


@pytest.mark.parametrize("name", ["AIRFLOW__API__BASE_URL", "FRAUD_INSTALLATION", "FRAUD_GROUP"])
def test_another_installation_on_the_same_staging_area_closes_no_incident(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inbox = mail_server()
    for _ in range(3):
        monkeypatch.setenv(name, "https://a.test")
        fail(BROKER_DOWN)
        monkeypatch.setenv(name, "https://b.test")
        succeed()
    assert len(inbox.messages) == 1
    fail(BROKER_DOWN)
    first, second = inbox.messages
    assert first["Message-ID"] != second["Message-ID"]


def test_task_of_the_same_name_in_another_dag_closes_no_incident(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(3):
        fail(BROKER_DOWN)
        succeed(dag_id="housekeeping")
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("succeeds_first", [False, True])
def test_incident_stored_by_an_earlier_version_is_continued(
    mail_server: StartServer, tmp_path: Path, succeeds_first: bool
) -> None:
    inbox = mail_server()
    old = {"cause": "KafkaError", "since": "2026-11-24T07:00:00Z", "last": "2026-11-24T08:00:00Z", "failures": 60}
    old |= {"told": "2026-11-24T07:00:00Z", "run_ids": ["a run"], "details": {"no broker answers": True}}
    Storage.open(str(tmp_path / "staging")).write("incidents/publish.json", json.dumps(old).encode())
    if succeeds_first:
        succeed()
    fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    assert len(inbox.messages) == succeeds_first
    fail(BROKER_DOWN, minutes=360)
    since, times = ("08:01", 3) if succeeds_first else ("07:00", 63)
    assert f"Failing since 2026-11-24 {since}:00 UTC, {times} times so far" in body(inbox.messages[-1])


def test_refused_operator_address_is_mailed_to_the_others(
    mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server()
    inbox.refused_recipients = {"night@bank.test": "550 5.1.1 unknown"}
    caplog.set_level("INFO", "fraud_scoring.incidents")
    fail(BROKER_DOWN)
    fail(StagingError("the disk is full"))
    assert subjects(inbox)[1] == "score_payments: An operator's address is refused: night@bank.test (550 5.1.1 unknown)"
    assert inbox.recipients == [["ops@bank.test"]] * 3
    assert "mailed operators about publish: ClusterError, 1 recipients" in caplog.text


def test_rejected_mail_is_sent_at_the_next_failure(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later"]
    with pytest.raises(smtplib.SMTPDataError):
        fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 1
    assert "2 times so far" in body(inbox.messages[0])


def test_text_of_a_librarys_error_is_not_mailed(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(ValueError("cannot convert '4556123412349012345'"))
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: publish failed: ValueError, builtins.ValueError")
    # All digits: a MIME boundary consists of random ones and may contain the first few.
    assert "4556123412349012345" not in message.as_string() + body(message)


def test_cause_is_the_products_error_behind_airflows(mail_server: StartServer) -> None:
    inbox = mail_server()
    wrapped = AirflowFailException("ModelNotFoundError: no run")
    wrapped.__cause__ = ModelNotFoundError("no run has a model\nBcc: thief@evil.test")
    fail(wrapped)
    (message,) = inbox.messages
    assert message["Subject"] == "score_payments: publish failed: ModelNotFoundError, no run has a model"
    assert "thief" not in message.as_string()


def test_text_of_an_error_is_neither_template_nor_markup(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(ClusterError("topic {{ 7 * 7 }} <script>"))
    assert "{{ 7 * 7 }} <script>" in inbox.messages[0]["Subject"]
    assert "{{ 7 * 7 }} &lt;script&gt;" in body(inbox.messages[0])


def fail_run(reason: str = "task_failure", **task: Any) -> None:
    """Call the DAG's own callback."""
    IncidentNotifier()({"ti": TaskInstance(**task), "reason": reason})


@pytest.fixture
def no_task_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a task's own callback, which the test never calls."""
    monkeypatch.setattr(incidents, "_TASK_CALLBACK_SECONDS", 0.0)


@pytest.mark.usefixtures("no_task_callback")
def test_killed_task_is_mailed_by_the_dags_callback(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail_run()
    fail_run(run_id="the next one")
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: publish failed: TaskDied, its process was killed")


def test_dags_callback_sends_no_mail_after_the_tasks_own(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail_run()
    assert len(inbox.messages) == 1
    fail(BROKER_DOWN, minutes=400)
    assert "2 times so far" in body(inbox.messages[1])


@pytest.mark.usefixtures("no_task_callback")
def test_late_dag_callback_sends_no_mail_after_the_tasks_own(mail_server: StartServer) -> None:
    """Its callback is called after a later run has failed and another one has succeeded."""
    inbox = mail_server()
    fail(BROKER_DOWN, run_id="the first")
    fail(BROKER_DOWN, run_id="the second")
    succeed(run_id="the third")
    fail_run(run_id="the first")
    fail_run(run_id="the second")
    assert len(inbox.messages) == 1


def test_dags_callback_waits_for_the_tasks_own(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    checked, has = threading.Event(), incident_store.IncidentStore.has

    def has_and_signal(self: Any, what: str, run_id: str) -> bool:
        is_stored = has(self, what, run_id)
        checked.set()
        return is_stored

    monkeypatch.setattr(incident_store.IncidentStore, "has", has_and_signal)
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(fail_run)
        assert checked.wait(30)
        fail(BROKER_DOWN)
        run.result(30)
    (message,) = inbox.messages
    assert "ClusterError" in message["Subject"]


@pytest.mark.usefixtures("no_task_callback")
def test_timed_out_run_without_a_task_is_mailed(mail_server: StartServer) -> None:
    inbox = mail_server()
    IncidentNotifier()({"dag": DAG("score_payments", schedule=None), "run_id": "manual 1", "reason": "timed_out"})
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: run failed: RunTimedOut, the run took longer")
    assert "/dags/score_payments/runs/manual%201" in body(message)


def test_without_operators_no_mail_is_sent_and_a_warning_logged(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "")
    fail(BROKER_DOWN)
    assert inbox.messages == []
    assert "FRAUD_OPERATORS_EMAIL names no address" in caplog.text


@pytest.mark.parametrize("name", ["FRAUD_MAX_PAYMENTS", "FRAUD_REMINDER_HOURS", "FRAUD_MASK_CARDS", "EMAIL_RECIPIENT"])
def test_invalid_setting_that_fails_every_task_is_mailed(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inbox = mail_server()
    monkeypatch.setenv(name, "abc")
    for _ in range(2):
        fail(SettingError(f"{name}='abc': give another"), task_id="drain")
    (message,) = inbox.messages
    assert f"drain failed: SettingError, {name}='abc'" in message["Subject"]
    be_late(1)
    assert len(inbox.messages) == 2


def test_invalid_operator_address_is_logged_as_an_error(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "ops.bank.test")
    fail(BROKER_DOWN)
    assert inbox.messages == []
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "FRAUD_OPERATORS_EMAIL='ops.bank.test'" in record.getMessage()


def fill_disk(monkeypatch: pytest.MonkeyPatch, *folders: str) -> None:
    """Let writes below these folders fail; files there can still be read."""
    write = Storage.write

    def full(self: Storage, path: str, data: Any) -> None:
        if any(folder in self.url for folder in folders):
            raise StagingError(f"cannot write {path} (the disk is full)")
        write(self, path, data)

    monkeypatch.setattr(Storage, "write", full)


def test_full_staging_area_is_mailed_once(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    fill_disk(monkeypatch, "/staging")
    for _ in range(2):
        fail(StagingError("the disk is full"))
        fail_run()
    assert len(inbox.messages) == 1
    be_late(1)
    be_late(1)
    assert len(inbox.messages) == 2
    succeed()
    fail(StagingError("the disk is full"))
    assert len(inbox.messages) == 3


def test_every_failure_is_mailed_if_nothing_can_be_stored(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    fill_disk(monkeypatch, "/staging", "/fraud_incidents_")
    fail(StagingError("the disk is full"))
    be_late(1)
    assert len(inbox.messages) == 2
    succeed()


def test_unusable_staging_area_is_mailed_once(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inbox = mail_server()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAUD_STAGING_URL", str(tmp_path / "file" / "staging"))
    fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 1
    succeed()
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 2


def test_damaged_incident_file_causes_one_more_mail(mail_server: StartServer, tmp_path: Path) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    (note,) = tmp_path.glob("staging/incidents/*/score_payments/publish.json")
    note.write_text("{")
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 2


def be_late(minutes: float, run_id: str = "scheduled__2026-11-24T08:00:00+00:00") -> None:
    Clock.moment += timedelta(minutes=minutes)
    asyncio.run(late_run({"dag_run": {"dag_id": "score_payments", "dag_run_id": run_id}}))


def test_late_runs_are_mailed_once_while_runs_stay_late(mail_server: StartServer) -> None:
    inbox = mail_server()
    for minutes in (1, 20, 30):
        be_late(minutes)
    (message,) = inbox.messages
    assert message["Subject"] == ("score_payments: A run is late: Late, not done 15 minutes after it was queued")
    assert "/dags/score_payments/runs/scheduled__2026-11-24T08:00:00+00:00" in body(message).replace("&#43;", "+")


def test_late_run_is_mailed_over_starttls_with_a_login(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """The asynchronous client of Airflow's hook sent STARTTLS twice, and failed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = mail_server(tls=True, login="fraud", password="secret")
    be_late(1)
    assert (inbox.encrypted, inbox.logins) == ([True], ["fraud"])


def test_late_run_stored_on_s3_does_not_change_the_triggerers_environment(
    mail_server: StartServer, services: LiveStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    given = json.loads(services.env["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(given))
    url = f"s3://staging/{uuid4().hex}"
    monkeypatch.setenv("FRAUD_STAGING_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another DAG's")
    before = dict(os.environ)
    be_late(1)
    be_late(2)
    assert dict(os.environ) == before
    assert len(inbox.messages) == 1
    assert staging(Settings(staging_url=url)).list("incidents")


def test_late_run_after_hours_without_one_is_a_new_incident(mail_server: StartServer) -> None:
    inbox = mail_server()
    be_late(1)
    be_late(90)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]


def test_deadline_names_an_importable_function() -> None:
    alert = late_run_alert(timedelta(minutes=7))
    assert alert is not None
    assert alert.interval == timedelta(minutes=7)
    assert alert.callback.path == "fraud_scoring.incidents.late_run"
    assert json.loads(json.dumps(alert.callback.kwargs)) == {}


LOST = "1,204 offsets expired before they were read: topic_1/0 [96, 1300)."


def end_batch(*kinds: str, minutes: float = 1, sentence: str = LOST, **task: Any) -> None:
    """Call the callback of a `plan` that found these kinds of alarm."""
    Clock.moment += timedelta(minutes=minutes)
    every = [kind for kind in alarm_texts.ADVICE if "dead letters" not in kind]
    found = [
        {"kind": kind, "sentence": sentence if kind in kinds else "", "cause": kind if kind in kinds else ""}
        for kind in every
    ]
    ti = TaskInstance(task_id="plan", try_number=1, alarms=found, **task)
    mail_alarms({"ti": ti})  # type: ignore[typeddict-item]


def test_alarm_mail_has_meaning_and_remedy(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.EXPIRED)
    (message,) = inbox.messages
    assert inbox.recipients == [["ops@bank.test", "night@bank.test"]]
    assert message["Subject"] == f"score_payments: Payments expired unread: {LOST}"
    assert LOST in body(message)
    assert "Kafka deleted these payments before a run published them" in body(message)
    assert "raise the topic&#39;s retention.ms" in body(message)
    assert 'href="https://airflow.test/' in body(message)


def test_alarm_is_mailed_once_while_it_lasts_and_again_after_a_batch_without_it(mail_server: StartServer) -> None:
    inbox = mail_server()
    for number in range(3):
        end_batch(alarm_texts.BEHIND_PAYMENTS, sentence=f"{number} offsets are left for later runs.")
    assert len(inbox.messages) == 1
    end_batch()
    end_batch(alarm_texts.BEHIND_PAYMENTS)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]


def test_alarms_of_different_kinds_are_independent(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.BLOCKED, alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.BLOCKED, alarm_texts.BEHIND_AGE)
    assert [message["Subject"].split(": ")[1] for message in inbox.messages] == [
        "Payments are held up by a producer",
        "Payments waited too long",
        "Payments are held up by a producer",
    ]


def test_lasting_alarm_causes_a_reminder(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.CLOSE_TO_RETENTION)
    end_batch(alarm_texts.CLOSE_TO_RETENTION, minutes=361)
    assert inbox.messages[1]["Subject"].startswith("Reminder: score_payments: Payments are about to expire unread")
    assert "Ongoing since 2026-11-24 08:01:00 UTC, 2 times so far" in body(inbox.messages[1])


MANY = "300 of 300 messages of batch a-batch became dead letters (100%): not_json 300."
FEW = "0 of 300 messages of batch a-batch became dead letters (0%)."


def end_published_batch(sentence: str = FEW, cause: str = "", *, minutes: float = 1, known: bool = True) -> None:
    """Call the callback of the task `reports`. Without `known` it has pushed no alarm, raised or ended."""
    Clock.moment += timedelta(minutes=minutes)
    found = [{"kind": alarm_texts.DEAD_LETTERS, "sentence": sentence, "cause": cause}] if known else []
    mail_alarms({"ti": TaskInstance(task_id="reports", try_number=1, alarms=found)})  # type: ignore[typeddict-item]


def test_many_dead_letters_are_mailed_once_and_their_end_once(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(3):
        end_published_batch(MANY, "not_json")
    end_published_batch(known=False)
    assert subjects(inbox) == [f"score_payments: Many messages became dead letters: {MANY}"]
    assert "produce them again from the dead-letter topic" in body(inbox.messages[0])
    end_published_batch()
    end_published_batch()
    assert subjects(inbox)[1:] == [f"score_payments: The share of dead letters is normal again: {FEW}"]
    assert "It began at 2026-11-24 08:01:00 UTC" in body(inbox.messages[1])
    assert "No further mail" not in body(inbox.messages[1])


def test_output_dead_letters_are_mailed_in_addition_to_the_failure_of_their_task(mail_server: StartServer) -> None:
    inbox = mail_server()
    sentence = "12 of 14 messages of topic_2 became dead letters (86%): no_headers 12."
    for cause in ("no_headers", "no_headers", "", ""):
        found = [{"kind": alarm_texts.OUTPUT_DEAD_LETTERS, "sentence": sentence if cause else FEW, "cause": cause}]
        ti = TaskInstance(task_id="record_predictions", dag_id="record_predictions", alarms=found)
        if cause:
            fail(LedgerGapError("gone before it could be recorded"), task_id=ti.task_id, dag_id=ti.dag_id)
        mail_alarms({"ti": ti})  # type: ignore[typeddict-item]
    assert subjects(inbox) == [
        "record_predictions: record_predictions failed: LedgerGapError, gone before it could be recorded",
        f"record_predictions: Many messages of the output topic became dead letters: {sentence}",
        f"record_predictions: The share of dead letters of the output topic is normal again: {FEW}",
    ]
    assert "Find the program that writes them to the output topic" in body(inbox.messages[1])


def test_new_reason_for_dead_letters_is_mailed(mail_server: StartServer) -> None:
    inbox = mail_server()
    for reason in ("not_json", "empty_value", "not_json"):
        end_published_batch(MANY, reason)
    assert len(inbox.messages) == 2


def test_dead_letters_that_come_and_go_cause_two_mails_an_hour(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(29):
        end_published_batch(MANY, "not_json")
        end_published_batch()
    assert subjects(inbox) == [
        f"score_payments: Many messages became dead letters: {MANY}",
        f"score_payments: The share of dead letters is normal again: {FEW}",
    ]


def test_rejected_mail_about_an_alarms_end_is_sent_by_the_next_run(
    mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    end_published_batch(MANY, "not_json")
    inbox.refusals = ["451 later"]
    end_published_batch()
    assert (
        "alarm 'many dead letters' could not be mailed to operators: SMTPDataError: 451 later. The next run tries"
        in caplog.text
    )
    end_published_batch()
    end_published_batch()
    assert len(inbox.messages) == 2


def test_end_of_unreported_alarm_is_not_mailed(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    with monkeypatch.context() as patched:
        patched.setenv("FRAUD_OPERATORS_EMAIL", "")
        end_published_batch(MANY, "not_json")
        end_published_batch()
    end_published_batch()
    assert inbox.messages == []


def test_implausible_timestamp_is_mailed_once(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(30):
        end_batch(
            alarm_texts.IMPLAUSIBLE_TIMESTAMP,
            sentence="The Kafka timestamp is implausible: topic_1/0 from offset 5 (1970-01-21).",
        )
    assert subjects(inbox) == [
        "score_payments: Timestamps are implausible: The Kafka timestamp is implausible: topic_1/0 from offset 5 "
        "(1970-01-21)."
    ]
    assert "message.timestamp.type to LogAppendTime" in body(inbox.messages[0])


def test_plan_that_fails_or_pushes_no_alarms_ends_no_alarm(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.EXPIRED)
    fail(BROKER_DOWN, task_id="plan")
    succeed(task_id="plan")
    mail_alarms({"ti": TaskInstance(task_id="plan", alarms=None)})  # type: ignore[typeddict-item]
    end_batch(alarm_texts.EXPIRED)
    assert [message["Subject"].split(": ")[1] for message in inbox.messages] == [
        "Payments expired unread",
        "plan failed",
    ]


def test_rejected_alarm_mail_is_sent_by_the_next_run(
    mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later", "451 later"]
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    assert inbox.messages == []
    assert "alarm 'close to retention' could not be mailed to operators: SMTPDataError" in caplog.text
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    assert len(inbox.messages) == 2


def expired(number: int) -> str:
    return f"{number} offsets expired before they were read."


@pytest.mark.parametrize("kind", [alarm_texts.EXPIRED, alarm_texts.OFFSETS_MOVED])
def test_rejected_mail_about_an_event_is_sent_by_a_later_run(mail_server: StartServer, kind: str) -> None:
    """No later batch finds these alarms again."""
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later"] * 3
    end_batch(kind, sentence=expired(7))
    end_batch(kind, sentence=expired(9))
    end_batch()
    assert inbox.messages == []
    end_batch()
    (message,) = inbox.messages
    assert f"{expired(7)} {expired(9)}" in body(message)
    end_batch()
    end_batch(kind, sentence=expired(11))
    assert [expired(11) in body(message) for message in inbox.messages] == [False, True]


def test_alarms_are_stored_before_the_mail_server_hangs(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*_: Any) -> None:
        raise AirflowTaskTimeout

    with monkeypatch.context() as patched:
        patched.setattr(IncidentNotifier, "send", hangs)
        end_batch(alarm_texts.EXPIRED, alarm_texts.OFFSETS_MOVED)
    inbox = mail_server()
    end_batch()
    assert [message["Subject"].split(": ")[1] for message in inbox.messages] == [
        "Payments expired unread",
        "The group's offsets were moved",
    ]


def test_event_without_operators_ends_with_its_batch(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    with monkeypatch.context() as patched:
        patched.setenv("FRAUD_OPERATORS_EMAIL", "")
        end_batch(alarm_texts.EXPIRED)
        end_batch()
    end_batch()
    assert inbox.messages == []


def test_event_is_mailed_once_while_the_staging_area_is_full(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later"]
    end_batch(alarm_texts.EXPIRED)
    fill_disk(monkeypatch, "/staging")
    for _ in range(3):
        end_batch()
    assert len(inbox.messages) == 1


def test_later_events_are_mailed_together_after_the_last(mail_server: StartServer) -> None:
    inbox = mail_server()
    for number in (7, 9, 9, 11):  # the second of these batches was drained again
        end_batch(alarm_texts.EXPIRED, sentence=expired(number))
    assert len(inbox.messages) == 1
    end_batch()
    end_batch()
    first, rest = inbox.messages
    assert expired(7) in body(first)
    assert expired(7) not in body(rest)
    assert f"{expired(9)} {expired(11)}" in body(rest)
    assert not rest["Subject"].startswith("Reminder")


def test_event_of_a_batch_that_is_drained_again_is_mailed_once(mail_server: StartServer) -> None:
    inbox = mail_server()
    for kinds in ((alarm_texts.EXPIRED,), (alarm_texts.EXPIRED,), (), ()):
        end_batch(*kinds)
    assert len(inbox.messages) == 1


# A client that is interrupted while it connects leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hanging_mail_server_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow kills a process that still runs callbacks 20 s after its task."""
    monkeypatch.setattr(alarm_mails, "_ALARM_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": silent.getsockname()[1]}
        extra = {"from_email": "f@bank.test", "disable_tls": True, "disable_ssl": True, "timeout": 30}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection | {"extra": extra}))
        started = time.monotonic()
        end_batch(alarm_texts.EXPIRED)
        assert time.monotonic() - started < 10
    assert "alarms were not mailed within 1 s" in caplog.text
    caplog.clear()  # its record refers to the error, which refers to the socket
    gc.collect()
    inbox = mail_server()
    end_batch(alarm_texts.EXPIRED)
    assert len(inbox.messages) == 1


def test_alarms_are_mailed_if_nothing_can_be_stored(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    fill_disk(monkeypatch, "/staging", "/fraud_incidents_")
    end_batch(alarm_texts.EXPIRED)
    assert len(inbox.messages) == 1
