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

from fraud_scoring import alarm_mails as alarm_mails
from fraud_scoring import incidents, kept_incidents
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
    """What a callback reads of Airflow's own."""

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
    """`datetime`, its `now` set by the test."""

    moment = START

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "ops@bank.test; night@bank.test")
    monkeypatch.setenv("FRAUD_STAGING_URL", str(tmp_path / "staging"))
    monkeypatch.setenv("FRAUD_REMINDER_HOURS", "6")
    monkeypatch.setattr(kept_incidents, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(incidents, "datetime", Clock)
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


def test_the_mail_names_dag_task_cause_run_try_and_link(mail_server: StartServer) -> None:
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


def test_another_dag_says_what_follows_there(mail_server: StartServer) -> None:
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


def test_the_same_trouble_is_told_once(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(5):
        fail(BROKER_DOWN)
    assert len(inbox.messages) == 1


def test_a_reminder_says_since_when_and_how_often(mail_server: StartServer) -> None:
    inbox = mail_server()
    for minutes in (1, 1, 357, 3, 1):
        fail(BROKER_DOWN, minutes=minutes)
    assert len(inbox.messages) == 2
    assert inbox.messages[1]["Subject"].startswith("Reminder: score_payments: publish failed")
    assert "Still failing since 2026-11-24 08:01:00 UTC, 4 times so far" in body(inbox.messages[1])


def test_another_cause_is_told(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail(ModelNotFoundError("no run has a model"))
    fail(ModelNotFoundError("no run has a model"))
    assert [message["Subject"][:60] for message in inbox.messages] == [
        "score_payments: publish failed: ClusterError, no broker answ",
        "score_payments: publish failed: ModelNotFoundError, no run h",
    ]


def test_another_task_is_told(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail(BROKER_DOWN, task_id="drain")
    assert len(inbox.messages) == 2


def test_after_a_success_it_is_news_again(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    succeed()
    fail(BROKER_DOWN)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]
    assert inbox.messages[0]["Message-ID"].startswith("<fraud-incident.")


def test_an_incident_of_a_task_that_was_not_mapped_ends_with_any_instance(mail_server: StartServer) -> None:
    """An earlier version ran a batch of one shard in tasks that it did not map."""
    inbox = mail_server()
    fail(BROKER_DOWN)
    succeed(map_index=0)
    fail(BROKER_DOWN, map_index=0)
    assert len(inbox.messages) == 2


def test_a_success_of_another_part_of_a_mapped_task_ends_nothing(mail_server: StartServer) -> None:
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


def test_causes_that_alternate_are_told_once_each(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(60):
        fail(BROKER_DOWN)
        fail(ModelNotFoundError("no run has a model"))
    assert len(inbox.messages) == 2
    fail(BROKER_DOWN, minutes=300)
    assert subjects(inbox)[2].startswith("Reminder: score_payments: publish failed: ClusterError")
    assert "Still failing since 2026-11-24 08:01:00 UTC, 61 times so far" in body(inbox.messages[2])


def test_of_one_task_there_are_two_mails_an_hour_at_most(mail_server: StartServer) -> None:
    """A new cause every minute, or one that comes and goes."""
    inbox = mail_server()
    for number in range(120):
        fail(type(f"Error{number}", (ClusterError,), {})("no broker answers"))
    assert len(inbox.messages) == 4
    for _ in range(30):
        succeed(task_id="drain")
        fail(BROKER_DOWN, minutes=2, task_id="drain")
    assert len(inbox.messages) == 6


def test_suppressed_failures_are_mailed_after_the_hour(mail_server: StartServer) -> None:
    inbox = mail_server()
    for error in (BROKER_DOWN, StagingError("the disk is full"), ModelNotFoundError("no run has a model")):
        fail(error)
    assert len(inbox.messages) == 2
    fail(ModelNotFoundError("no run has a model"), minutes=60)
    assert subjects(inbox)[2].startswith("score_payments: publish failed: ModelNotFoundError")


class UnseenError(ClusterError):
    pass


def test_what_the_floor_held_back_is_told_though_the_task_worked_since(mail_server: StartServer) -> None:
    inbox = mail_server()
    for error in (BROKER_DOWN, StagingError("the disk is full"), UnseenError("no one saw it"), UnseenError("nor this")):
        fail(error, minutes=2)
        succeed()
    fail(ModelNotFoundError("no run has a model"), minutes=86)
    fail(ModelNotFoundError("no run has a model"))
    assert [subject.split(": ")[2].split(",")[0] for subject in subjects(inbox)] == [
        "ClusterError",
        "StagingError",
        "ModelNotFoundError",
    ]
    assert "UnseenError, 2 times, since 2026-11-24 08:06:00 UTC: nor this" in body(inbox.messages[2])
    succeed()
    fail(BROKER_DOWN)
    assert "UnseenError" not in body(inbox.messages[3])


def test_a_cause_that_the_floor_held_back_is_told_with_the_next_failure_of_another_one(
    mail_server: StartServer,
) -> None:
    inbox = mail_server()
    for error in (BROKER_DOWN, StagingError("the disk is full"), UnseenError("no one saw it"), BROKER_DOWN):
        fail(error)
    assert len(inbox.messages) == 2
    fail(BROKER_DOWN, minutes=60)
    fail(BROKER_DOWN, minutes=60)
    assert len(inbox.messages) == 3
    assert "UnseenError, once, since 2026-11-24 08:03:00 UTC: no one saw it" in body(inbox.messages[2])


def test_hundreds_of_causes_that_were_held_back_are_all_counted_in_one_mail(mail_server: StartServer) -> None:
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
def test_another_installation_on_the_same_staging_area_ends_no_incident(
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


def test_a_task_of_the_same_name_in_another_dag_ends_no_incident(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(3):
        fail(BROKER_DOWN)
        succeed(dag_id="housekeeping")
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("works_between", [False, True])
def test_what_an_earlier_version_has_told_is_known(
    mail_server: StartServer, tmp_path: Path, works_between: bool
) -> None:
    inbox = mail_server()
    old = {"cause": "KafkaError", "since": "2026-11-24T07:00:00Z", "last": "2026-11-24T08:00:00Z", "failures": 60}
    old |= {"told": "2026-11-24T07:00:00Z", "run_ids": ["a run"], "details": {"no broker answers": True}}
    Storage.open(str(tmp_path / "staging")).write("incidents/publish.json", json.dumps(old).encode())
    if works_between:
        succeed()
    fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    assert len(inbox.messages) == works_between
    fail(BROKER_DOWN, minutes=360)
    since, times = ("08:01", 3) if works_between else ("07:00", 63)
    assert f"Still failing since 2026-11-24 {since}:00 UTC, {times} times so far" in body(inbox.messages[-1])


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
    assert "operators told of publish: ClusterError, 1 recipients" in caplog.text


def test_a_mail_that_no_server_took_is_tried_again(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later"]
    with pytest.raises(smtplib.SMTPDataError):
        fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 1
    assert "2 times so far" in body(inbox.messages[0])


def test_a_foreign_errors_text_is_not_quoted(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(ValueError("cannot convert '4556123412349012345'"))
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: publish failed: ValueError, builtins.ValueError")
    # Not the first digits alone: a MIME boundary is made of random ones.
    assert "4556123412349012345" not in message.as_string() + body(message)


def test_the_products_error_behind_airflows_is_the_cause(mail_server: StartServer) -> None:
    inbox = mail_server()
    wrapped = AirflowFailException("ModelNotFoundError: no run")
    wrapped.__cause__ = ModelNotFoundError("no run has a model\nBcc: thief@evil.test")
    fail(wrapped)
    (message,) = inbox.messages
    assert message["Subject"] == "score_payments: publish failed: ModelNotFoundError, no run has a model"
    assert "thief" not in message.as_string()


def test_what_an_error_says_is_no_template_and_no_markup(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(ClusterError("topic {{ 7 * 7 }} <script>"))
    assert "{{ 7 * 7 }} <script>" in inbox.messages[0]["Subject"]
    assert "{{ 7 * 7 }} &lt;script&gt;" in body(inbox.messages[0])


def fail_run(reason: str = "task_failure", **task: Any) -> None:
    """The DAG's own callback."""
    IncidentNotifier()({"ti": TaskInstance(**task), "reason": reason})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no task speaks."""
    monkeypatch.setattr(incidents, "_TASKS_OWN_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_task_that_was_killed_is_told_by_its_run(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail_run()
    fail_run(run_id="the next one")
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: publish failed: TaskDied, its process was killed")


def test_a_run_is_silent_about_a_task_that_has_spoken(mail_server: StartServer) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    fail_run()
    assert len(inbox.messages) == 1
    fail(BROKER_DOWN, minutes=400)
    assert "2 times so far" in body(inbox.messages[1])


@pytest.mark.usefixtures("impatient")
def test_a_run_that_asks_late_is_silent_too(mail_server: StartServer) -> None:
    """Its callback comes when a further run has failed, and another one has succeeded."""
    inbox = mail_server()
    fail(BROKER_DOWN, run_id="the first")
    fail(BROKER_DOWN, run_id="the second")
    succeed(run_id="the third")
    fail_run(run_id="the first")
    fail_run(run_id="the second")
    assert len(inbox.messages) == 1


def test_a_task_that_speaks_after_its_run_has_ended_is_waited_for(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    asked, has = threading.Event(), kept_incidents.Incidents.has

    def first_asked(self: Any, what: str, run_id: str) -> bool:
        known = has(self, what, run_id)
        asked.set()
        return known

    monkeypatch.setattr(kept_incidents.Incidents, "has", first_asked)
    with ThreadPoolExecutor(1) as beside:
        run = beside.submit(fail_run)
        assert asked.wait(30)
        fail(BROKER_DOWN)
        run.result(30)
    (message,) = inbox.messages
    assert "ClusterError" in message["Subject"]


@pytest.mark.usefixtures("impatient")
def test_a_run_that_took_too_long_says_so_even_of_no_task(mail_server: StartServer) -> None:
    inbox = mail_server()
    IncidentNotifier()({"dag": DAG("score_payments", schedule=None), "run_id": "manual 1", "reason": "timed_out"})
    (message,) = inbox.messages
    assert message["Subject"].startswith("score_payments: run failed: RunTimedOut, the run took longer")
    assert "/dags/score_payments/runs/manual%201" in body(message)


def test_without_operators_nothing_is_sent_and_nothing_breaks(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "")
    fail(BROKER_DOWN)
    assert inbox.messages == []
    assert "FRAUD_OPERATORS_EMAIL names no address" in caplog.text


@pytest.mark.parametrize("name", ["FRAUD_MAX_PAYMENTS", "FRAUD_REMINDER_HOURS", "FRAUD_MASK_CARDS", "EMAIL_RECIPIENT"])
def test_a_setting_that_fails_every_task_is_told(
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


def test_operators_that_are_none_are_an_error_in_the_log(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server()
    monkeypatch.setenv("FRAUD_OPERATORS_EMAIL", "ops.bank.test")
    fail(BROKER_DOWN)
    assert inbox.messages == []
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "FRAUD_OPERATORS_EMAIL='ops.bank.test'" in record.getMessage()


def fill_disk(monkeypatch: pytest.MonkeyPatch, *folders: str) -> None:
    """Nothing can be written below these any more; what is there can be read."""
    write = Storage.write

    def full(self: Storage, path: str, data: Any) -> None:
        if any(folder in self.url for folder in folders):
            raise StagingError(f"cannot write {path} (the disk is full)")
        write(self, path, data)

    monkeypatch.setattr(Storage, "write", full)


def test_a_full_staging_area_is_told_once(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_where_nothing_can_be_noted_every_failure_is_told(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    fill_disk(monkeypatch, "/staging", "/fraud_incidents_")
    fail(StagingError("the disk is full"))
    be_late(1)
    assert len(inbox.messages) == 2
    succeed()


def test_a_broken_staging_area_is_told_once_too(
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


def test_a_damaged_note_costs_one_mail_more(mail_server: StartServer, tmp_path: Path) -> None:
    inbox = mail_server()
    fail(BROKER_DOWN)
    (note,) = tmp_path.glob("staging/incidents/*/score_payments/publish.json")
    note.write_text("{")
    fail(BROKER_DOWN)
    assert len(inbox.messages) == 2


def be_late(minutes: float, run_id: str = "scheduled__2026-11-24T08:00:00+00:00") -> None:
    Clock.moment += timedelta(minutes=minutes)
    asyncio.run(late_run({"dag_run": {"dag_id": "score_payments", "dag_run_id": run_id}}))


def test_a_late_run_is_told_once_while_runs_stay_late(mail_server: StartServer) -> None:
    inbox = mail_server()
    for minutes in (1, 20, 30):
        be_late(minutes)
    (message,) = inbox.messages
    assert message["Subject"] == ("score_payments: A run is late: Late, not done 15 minutes after it was queued")
    assert "/dags/score_payments/runs/scheduled__2026-11-24T08:00:00+00:00" in body(message).replace("&#43;", "+")


def test_a_late_run_is_told_over_starttls_with_a_login(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """The hook's asynchronous client asked for STARTTLS twice, and failed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = mail_server(tls=True, login="fraud", password="secret")
    be_late(1)
    assert (inbox.encrypted, inbox.logins) == ([True], ["fraud"])


def test_a_late_run_that_is_noted_on_s3_leaves_the_triggerers_environment_as_it_is(
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


def test_a_run_that_is_late_after_hours_of_quiet_is_news(mail_server: StartServer) -> None:
    inbox = mail_server()
    be_late(1)
    be_late(90)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]


def test_the_deadline_names_a_function_that_the_triggerer_can_import() -> None:
    alert = late_run_alert(timedelta(minutes=7))
    assert alert is not None
    assert alert.interval == timedelta(minutes=7)
    assert alert.callback.path == "fraud_scoring.incidents.late_run"
    assert json.loads(json.dumps(alert.callback.kwargs)) == {}


LOST = "1,204 offsets expired before they were read: topic_1/0 [96, 1300)."


def end_batch(*kinds: str, minutes: float = 1, sentence: str = LOST, **task: Any) -> None:
    """What follows on a plan that found these alarms."""
    Clock.moment += timedelta(minutes=minutes)
    every = [kind for kind in alarm_texts.ADVICE if "dead letters" not in kind]
    found = [
        {"kind": kind, "sentence": sentence if kind in kinds else "", "cause": kind if kind in kinds else ""}
        for kind in every
    ]
    ti = TaskInstance(task_id="plan", try_number=1, alarms=found, **task)
    mail_alarms({"ti": ti})  # type: ignore[typeddict-item]


def test_an_alarm_says_what_it_means_and_what_to_do(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.EXPIRED)
    (message,) = inbox.messages
    assert inbox.recipients == [["ops@bank.test", "night@bank.test"]]
    assert message["Subject"] == f"score_payments: Payments expired unread: {LOST}"
    assert LOST in body(message)
    assert "Kafka deleted these payments before a run read them" in body(message)
    assert "raise the topic&#39;s retention.ms" in body(message)
    assert 'href="https://airflow.test/' in body(message)


def test_an_alarm_is_told_once_while_it_lasts_and_again_after_a_batch_without_it(mail_server: StartServer) -> None:
    inbox = mail_server()
    for number in range(3):
        end_batch(alarm_texts.BEHIND_PAYMENTS, sentence=f"{number} offsets are left for later runs.")
    assert len(inbox.messages) == 1
    end_batch()
    end_batch(alarm_texts.BEHIND_PAYMENTS)
    assert [message["Subject"].startswith("Reminder") for message in inbox.messages] == [False, False]


def test_alarms_of_several_kinds_come_and_go_alone(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.BLOCKED, alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.BLOCKED, alarm_texts.BEHIND_AGE)
    assert [message["Subject"].split(": ")[1] for message in inbox.messages] == [
        "Payments are held up by a producer",
        "Payments waited too long",
        "Payments are held up by a producer",
    ]


def test_an_alarm_that_lasts_is_reminded_of(mail_server: StartServer) -> None:
    inbox = mail_server()
    end_batch(alarm_texts.CLOSE_TO_RETENTION)
    end_batch(alarm_texts.CLOSE_TO_RETENTION, minutes=361)
    assert inbox.messages[1]["Subject"].startswith("Reminder: score_payments: Payments are about to expire unread")
    assert "Still so since 2026-11-24 08:01:00 UTC, 2 times so far" in body(inbox.messages[1])


MANY = "300 of 300 messages of batch a-batch became dead letters (100%): not_json 300."
FEW = "0 of 300 messages of batch a-batch became dead letters (0%)."


def end_published_batch(sentence: str = FEW, cause: str = "", *, minutes: float = 1, known: bool = True) -> None:
    """What follows on the task `reports` of a batch."""
    Clock.moment += timedelta(minutes=minutes)
    found = [{"kind": alarm_texts.DEAD_LETTERS, "sentence": sentence, "cause": cause}] if known else []
    mail_alarms({"ti": TaskInstance(task_id="reports", try_number=1, alarms=found)})  # type: ignore[typeddict-item]


def test_many_dead_letters_are_told_once_and_their_end_too(mail_server: StartServer) -> None:
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
    assert "No more mail about this" not in body(inbox.messages[1])


def test_dead_letters_of_the_output_topic_are_told_beside_the_failure_of_their_task(mail_server: StartServer) -> None:
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


def test_another_reason_for_dead_letters_is_told(mail_server: StartServer) -> None:
    inbox = mail_server()
    for reason in ("not_json", "empty_value", "not_json"):
        end_published_batch(MANY, reason)
    assert len(inbox.messages) == 2


def test_dead_letters_that_come_and_go_are_two_mails_an_hour(mail_server: StartServer) -> None:
    inbox = mail_server()
    for _ in range(29):
        end_published_batch(MANY, "not_json")
        end_published_batch()
    assert subjects(inbox) == [
        f"score_payments: Many messages became dead letters: {MANY}",
        f"score_payments: The share of dead letters is normal again: {FEW}",
    ]


def test_an_end_that_no_server_took_is_told_by_the_next_run(
    mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    end_published_batch(MANY, "not_json")
    inbox.refusals = ["451 later"]
    end_published_batch()
    assert "told of many dead letters, the next run tries again: SMTPDataError: 451 later" in caplog.text
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


def test_an_implausible_timestamp_is_told_once(mail_server: StartServer) -> None:
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


def test_neither_a_failed_plan_nor_one_without_an_answer_ends_an_alarm(mail_server: StartServer) -> None:
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


def test_an_alarm_that_no_server_took_is_told_by_the_next_run(
    mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later", "451 later"]
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    assert inbox.messages == []
    assert "operators could not be told of close to retention, the next run tries again: SMTPDataError" in caplog.text
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    end_batch(alarm_texts.CLOSE_TO_RETENTION, alarm_texts.BEHIND_AGE)
    assert len(inbox.messages) == 2


def expired(number: int) -> str:
    return f"{number} offsets expired before they were read."


@pytest.mark.parametrize("kind", [alarm_texts.EXPIRED, alarm_texts.OFFSETS_MOVED])
def test_what_stands_in_one_batch_only_is_told_though_no_server_took_it_then(
    mail_server: StartServer, kind: str
) -> None:
    """The batch settles it: no later one finds it again."""
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


def test_a_mail_server_that_hangs_keeps_no_alarm_from_being_noted(
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


def test_an_alarm_that_nobody_is_to_be_told_is_over_with_its_batch(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    with monkeypatch.context() as patched:
        patched.setenv("FRAUD_OPERATORS_EMAIL", "")
        end_batch(alarm_texts.EXPIRED)
        end_batch()
    end_batch()
    assert inbox.messages == []


def test_a_staging_area_that_is_full_gets_no_mail_every_minute(
    mail_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server(extra={"retry_limit": 0})
    inbox.refusals = ["451 later"]
    end_batch(alarm_texts.EXPIRED)
    fill_disk(monkeypatch, "/staging")
    for _ in range(3):
        end_batch()
    assert len(inbox.messages) == 1


def test_what_expired_after_the_first_mail_is_told_at_the_end(mail_server: StartServer) -> None:
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


def test_a_batch_that_is_drained_again_tells_nothing_twice(mail_server: StartServer) -> None:
    inbox = mail_server()
    for kinds in ((alarm_texts.EXPIRED,), (alarm_texts.EXPIRED,), (), ()):
        end_batch(*kinds)
    assert len(inbox.messages) == 1


# The client that is interrupted while it connects leaves its socket to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mail_server_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, mail_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow would kill the process that still runs a callback 20 s after its task."""
    monkeypatch.setattr(alarm_mails, "_ALARM_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": silent.getsockname()[1]}
        extra = {"from_email": "f@bank.test", "disable_tls": True, "disable_ssl": True, "timeout": 30}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection | {"extra": extra}))
        begun = time.monotonic()
        end_batch(alarm_texts.EXPIRED)
        assert time.monotonic() - begun < 10
    assert "alarms were not told within 1 s" in caplog.text
    caplog.clear()  # its record holds the error, and that the socket
    gc.collect()
    inbox = mail_server()
    end_batch(alarm_texts.EXPIRED)
    assert len(inbox.messages) == 1


def test_alarms_are_told_where_nothing_can_be_noted(mail_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = mail_server()
    fill_disk(monkeypatch, "/staging", "/fraud_incidents_")
    end_batch(alarm_texts.EXPIRED)
    assert len(inbox.messages) == 1
