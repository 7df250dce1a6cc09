"""The mail server, by Airflow's own hook; and the whole of `fraud check` as a shell has it."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from dev.stack.part import BIN
from fraud_scoring.airflow_check import _check_confirmed, _check_mail_server
from fraud_scoring.airflow_connections import ledger
from include.check.check_result import CheckResult, run
from include.check.ledger_check import check_ledger
from include.errors import FraudError
from include.settings import Settings
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
    with pytest.raises(FraudError, match=r"refuses fraud: 535 5\.7\.8 .* check the login and password") as told:
        list(_check_mail_server())
    assert "wr0ng" not in str(told.value)


def test_a_certificate_that_is_not_trusted(mail_server: StartServer) -> None:
    mail_server(tls=True, login="fraud", password="secret")
    with pytest.raises(FraudError, match=r"is not trusted .*SSL_CERT_FILE"):
        list(_check_mail_server())


def test_without_a_ledger_it_is_said_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW_CONN_LEDGER_DB", "LOGGER_SQL_URI"):
        monkeypatch.delenv(name, raising=False)
    (found,) = run([("ledger_db", lambda: check_ledger(ledger()))])
    assert not found.ok
    assert found.text == (
        "the connection ledger_db does not exist: set it, for instance by AIRFLOW_CONN_LEDGER_DB, or set "
        "LOGGER_SQL_URI. Without a ledger the DAG record_predictions fails"
    )


def exports(url: str) -> CheckResult:
    (found,) = run([("tried", lambda: _check_confirmed(Settings(confirmed_url=url)))])
    return found


def test_exports(services: LiveStack, service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried leaves nothing: whoever trains reads all that lies there."""
    folder = f"check-{uuid.uuid4().hex}"
    assert exports(f"s3://staging/{folder}").text == f"s3://staging/{folder} can be written"
    s3 = boto3.client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket="staging", Prefix=folder)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="staging", Prefix=folder)
    assert exports("") == CheckResult(
        "FRAUD_CONFIRMED_URL", "not set: exports are off, and a run of the DAG export_confirmed would fail"
    )
    for url, words in (
        ("s3://no-such-bucket/confirmed", "the bucket does not exist: create it, or set FRAUD_CONFIRMED_URL"),
        ("/tmp/confirmed", "FRAUD_CONFIRMED_URL is not in the form s3://bucket/prefix"),
    ):
        assert not exports(url).ok
        assert words in exports(url).text
    connection = json.loads(service_environment["AIRFLOW_CONN_AWS_DEFAULT"]) | {"password": "wr0ng"}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    found = exports(f"s3://staging/{folder}")
    assert not found.ok
    assert "check the keys in the connection aws_default" in found.text
    assert "wr0ng" not in found.text


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
    database = re.sub(":[0-9A-Za-z]{64}@", ":wr0ng@", url)
    assert database != url
    wrong = {
        "FRAUD_OUTPUT_TOPIC": "no_such_topic",
        "EMAIL_RECIPIENT": "",
        "AIRFLOW_CONN_LEDGER_DB": stack.env["AIRFLOW_CONN_LEDGER_DB"].replace('"schema": "ledger"', '"schema": "none"'),
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
    assert [line for line in lines if line.startswith("WRONG  ledger_db: the ledger's database at ")]
    assert [line for line in lines if line.startswith("ok     FRAUD_CONFIRMED_URL: s3://")]
    assert [line for line in lines if line.startswith("WRONG  mail addresses: EMAIL_RECIPIENT names nobody")]
    assert [line for line in lines if line.startswith("ok     smtp_default: 127.0.0.1:")]
    assert [line for line in lines if line.startswith("ok     staging: ")]
