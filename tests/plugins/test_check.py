"""The checks that need Airflow's hooks."""

from __future__ import annotations

import gc
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from fraud_scoring.airflow_check import _check_confirmed, _check_mail_server
from fraud_scoring.airflow_connections import ledger
from include.check.check_result import CheckResult, run_checks
from include.check.ledger_check import check_ledger
from include.errors import FraudError
from include.settings import Settings
from tests.support.live_stack import LiveStack

StartServer = Callable[..., Any]

# The hook leaves its socket to the garbage collector if it cannot log in or does not trust the server. aiosmtpd does
# the same if a client aborts the TLS handshake.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:Exception ignored in. <{what}:pytest.PytestUnraisableExceptionWarning")
    for what in ("ssl.SSLSocket", "socket.socket", "function _SelectorTransport.__del__")
]


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    """Collect sockets in the test that left them, so that no other test gets the warning."""
    yield
    gc.collect()


def test_mail_server_that_accepts_mail_passes(
    mail_server: StartServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = mail_server(tls=True, login="fraud", password="secret")
    (found,) = _check_mail_server()
    assert "STARTTLS, as fraud, from fraud@bank.test" in found.text
    assert inbox.logins == ["fraud"]
    assert not inbox.messages


def test_rejected_login_is_named(mail_server: StartServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mail_server(tls=True, login="fraud", password="wr0ng")
    with pytest.raises(
        FraudError, match=r"rejects the login fraud: 535 5\.7\.8 .* check the login and password"
    ) as error:
        list(_check_mail_server())
    assert "wr0ng" not in str(error.value)


def test_untrusted_certificate_is_named(mail_server: StartServer) -> None:
    mail_server(tls=True, login="fraud", password="secret")
    with pytest.raises(FraudError, match=r"is not trusted .*SSL_CERT_FILE"):
        list(_check_mail_server())


def test_missing_ledger_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW_CONN_LEDGER_DB", "LOGGER_SQL_URI"):
        monkeypatch.delenv(name, raising=False)
    (found,) = run_checks([("ledger_db", lambda: check_ledger(ledger()))])
    assert not found.ok
    assert found.text == (
        "the connection ledger_db does not exist: set it, for instance by AIRFLOW_CONN_LEDGER_DB, or set "
        "LOGGER_SQL_URI. Without a ledger the DAG record_predictions fails"
    )


def check_exports(url: str) -> CheckResult:
    (found,) = run_checks([("tried", lambda: _check_confirmed(Settings(confirmed_url=url)))])
    return found


def test_export_bucket_is_checked_without_leaving_files(
    services: LiveStack, service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check leaves no file: `fraud train` reads all files there."""
    folder = f"check-{uuid.uuid4().hex}"
    assert check_exports(f"s3://staging/{folder}").text == f"s3://staging/{folder} can be written"
    s3 = boto3.client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket="staging", Prefix=folder)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="staging", Prefix=folder)
    assert check_exports("") == CheckResult(
        "FRAUD_CONFIRMED_URL", "not set: exports are off, and a run of the DAG export_confirmed would fail"
    )
    for url, expected in (
        ("s3://no-such-bucket/confirmed", "the bucket does not exist: create it, or set FRAUD_CONFIRMED_URL"),
        ("/tmp/confirmed", "FRAUD_CONFIRMED_URL is not in the form s3://bucket/prefix"),
    ):
        assert not check_exports(url).ok
        assert expected in check_exports(url).text
    connection = json.loads(service_environment["AIRFLOW_CONN_AWS_DEFAULT"]) | {"password": "wr0ng"}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    found = check_exports(f"s3://staging/{folder}")
    assert not found.ok
    assert "check the keys in the connection aws_default" in found.text
    assert "wr0ng" not in found.text


def test_unreachable_mail_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "extra": {"from_email": "a@b.c", "timeout": 5}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(FraudError, match=r"127\.0\.0\.1:9\) accepts no mail \(ConnectionRefusedError"):
        list(_check_mail_server())


def test_login_without_a_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "login": "fraud", "extra": {"from_email": "a@b.c"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(FraudError, match="has the login fraud but no password"):
        list(_check_mail_server())
