"""The mail server, by Airflow's own hook; and the whole of `fraud check` as a shell has it."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.stack.part import BIN
from fraud_scoring.check import _check_mail_server
from include.errors import FraudError
from tests.support.live_stack import LiveStack

StartServer = Callable[..., Any]

# The hook leaves its socket to the garbage collector where it cannot log in, or does not trust the server; so does
# aiosmtpd, where a client breaks off its handshake.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:Exception ignored in. <{what}:pytest.PytestUnraisableExceptionWarning")
    for what in ("ssl.SSLSocket", "socket.socket", "function _SelectorTransport.__del__")
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """In the test that left it, and in no other."""
    yield
    gc.collect()


def test_a_mail_server_that_takes_mail(
    mail_server: StartServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = mail_server(tls=True, login="fraud", password="secret")
    (found,) = _check_mail_server()
    assert "STARTTLS, as fraud, from fraud@bank.test" in found.text
    assert inbox.logins == ["fraud"]
    assert not inbox.messages


def test_a_login_that_is_refused(mail_server: StartServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mail_server(tls=True, login="fraud", password="wr0ng")
    with pytest.raises(FraudError, match=r"refuses fraud \(535\): check the login and password") as told:
        list(_check_mail_server())
    assert "wr0ng" not in str(told.value)


def test_a_certificate_that_is_not_trusted(mail_server: StartServer) -> None:
    mail_server(tls=True, login="fraud", password="secret")
    with pytest.raises(FraudError, match=r"is not trusted .*SSL_CERT_FILE"):
        list(_check_mail_server())


def test_no_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "extra": {"from_email": "a@b.c", "timeout": 5}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(FraudError, match=r"127\.0\.0\.1:9\) takes no mail \(ConnectionRefusedError"):
        list(_check_mail_server())


def test_a_login_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "login": "fraud", "extra": {"from_email": "a@b.c"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(FraudError, match="has the login fraud and no password"):
        list(_check_mail_server())


def test_where_there_is_no_database_it_says_what_it_cannot_see(stack: LiveStack, tmp_path: Path) -> None:
    here = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/none.db",
        "AIRFLOW_CONN_AWS_DEFAULT": '{"conn_type": "aws", "extra": {"role_arn": 7}}',
        "FRAUD_MODEL_CACHE": str(tmp_path / "models"),
    }
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **stack.env, **here}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok     Airflow's database: none here, as on a worker"), done.stdout + done.stderr
    assert lines[1].startswith("WRONG  aws_default: cannot be used (")
    assert [line for line in lines if line.startswith("ok     smtp_default: ")]
    assert "Traceback" not in done.stderr


def test_the_command_tells_all_that_is_wrong(stack: LiveStack, tmp_path: Path) -> None:
    url = stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    database = re.sub(":[0-9a-f]{64}@", ":wr0ng@", url)
    assert database != url
    wrong = {
        "FRAUD_OUTPUT_TOPIC": "no_such_topic",
        "EMAIL_RECIPIENT": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
    }
    cache = {"FRAUD_MODEL_CACHE": str(tmp_path)}
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **stack.env, **wrong, **cache}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("WRONG  topic no_such_topic: does not exist")]
    assert [line for line in lines if line.startswith("WRONG  Airflow's database: cannot be read (OperationalError)")]
    assert "wr0ng" not in done.stdout + done.stderr
    assert [line for line in lines if line.startswith("WRONG  mail addresses: EMAIL_RECIPIENT names nobody")]
    assert [line for line in lines if line.startswith("ok     smtp_default: 127.0.0.1:")]
    assert [line for line in lines if line.startswith("ok     staging: ")]
