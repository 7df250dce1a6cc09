"""A wrong secret or certificate in a connection gives one clear line soon, without the secret, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from dev.stack.part import ROOT
from tests.support.ledger import sources
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.pipeline import DAG, reported, reports, trans_nums
from tests.support.secure_stack import SecureStack

WRONG = "a-wrong-secret-4711"
SECONDS = 30
RECORDER = "record_predictions"


@dataclass(frozen=True)
class Case:
    connection: str
    task: str
    words: str
    changes: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "Kafka, password": Case(
        "kafka_default", "plan", "cannot connect to Kafka as fraud:", {"extra": {"sasl.password": WRONG}}
    ),
    "Kafka, certificate": Case(
        "kafka_default", "plan", "check the certificates named in the connection kafka_default",
        {"extra": {"ssl.ca.location": None}},
    ),
    "S3": Case("aws_default", "plan", "check the keys in the connection aws_default", {"password": WRONG}),
    "mail, password": Case("smtp_default", "email", "check the login and password in", {"password": WRONG}),
    # The certificate is for the address, not for this name of it.
    "mail, certificate": Case("smtp_default", "email", "the certificate of smtp_default", {"host": "localhost"}),
}  # fmt: skip


@pytest.fixture
def inbox(secure: SecureStack) -> Inbox:
    return Inbox(secure.stack.maildir)


@pytest.fixture
def recorder(secure: SecureStack) -> Iterator[str]:
    secure.api.wait_for_dag(RECORDER)
    secure.api.pause(RECORDER, False)
    yield RECORDER
    secure.api.pause(RECORDER, True)


def with_long(cases: Iterable[str], *short: str) -> list[ParameterSet]:
    """Return the cases as parameters, those that are not `short` with the mark `long`.

    The errors of the long ones are tested without a run in tests/kafka, tests/plugins and tests/check.
    """
    return [pytest.param(case, marks=[] if case in short else [pytest.mark.long]) for case in cases]


WRONG_LEDGER = {
    "password": ({"password": WRONG}, 'password authentication failed for user "ledger": check login, password'),
    "user": ({"login": "nobody"}, 'password authentication failed for user "nobody": check login, password'),
    "database": ({"schema": "no_such"}, 'database "no_such" does not exist: check login, password and database'),
}


@pytest.mark.parametrize("name", with_long(WRONG_LEDGER, "password"))
def test_wrong_ledger_login_fails_at_once_and_next_run_records(secure: SecureStack, recorder: str, name: str) -> None:
    """Scoring does not use the ledger."""
    changes, words = WRONG_LEDGER[name]
    with secure.spoiled("ledger_db", **changes):
        _, sent = secure.score(payments(GENUINE, FRAUD_FOR_LATEST))
        run_id = secure.finish(secure.api.trigger(recorder), "failed", recorder)
    for task_id in ("record_predictions", "record_batches"):
        task = secure.task(run_id, task_id, recorder)
        assert (task["state"], task["try_number"]) == ("failed", 1)
        log = secure.await_log(run_id, task_id, words, dag=recorder)
        assert "the connection ledger_db" in log
        for secret in (WRONG, *secure.passwords.values()):
            assert secret not in log

    secure.finish(secure.api.trigger(recorder), dag=recorder)
    assert {one.source for one in sent} <= {source.rpartition("/")[0] for source, _ in sources(secure.stack.ledger)}
    assert secure.verify().is_whole


@pytest.mark.parametrize("name", with_long(CASES, "Kafka, password", "S3", "mail, password"))
def test_wrong_secret_fails_at_once_and_loses_nothing(secure: SecureStack, inbox: Inbox, name: str) -> None:
    case = CASES[name]
    sent = secure.send(payments(GENUINE, FRAUD_FOR_LATEST))
    with secure.spoiled(case.connection, **case.changes):
        run_id = secure.finish(secure.api.trigger(DAG), "failed")
    task = secure.task(run_id, case.task)
    assert (task["state"], task["try_number"]) == ("failed", 1)
    began, ended = (datetime.fromisoformat(task[at]) for at in ("start_date", "end_date"))
    assert (ended - began).total_seconds() < SECONDS
    log = secure.await_log(run_id, case.task, case.words)
    for secret in (WRONG, *secure.passwords.values()):
        assert secret not in log

    secure.finish(secure.api.trigger(DAG))
    assert sorted(reported(reports(inbox))) == sorted(trans_nums(sent[1:]))
    verdict = secure.verify()
    assert verdict.is_whole
    assert verdict.count("due") > 0


def test_wrong_database_password_is_not_shown(secure: SecureStack) -> None:
    url = secure.stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    wrong = url.replace(secure.passwords["postgres"], WRONG)
    environment = {**os.environ, **secure.stack.env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": wrong}
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "check"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "password authentication failed" in done.stdout + done.stderr
    assert WRONG not in done.stdout + done.stderr
