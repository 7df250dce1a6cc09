"""The fields of an SMTP connection, and the errors of a server that accepts no mail."""

from __future__ import annotations

import gc
import hmac
import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from airflow.sdk.exceptions import AirflowException

from fraud_scoring.airflow_check import _check_mail_server
from fraud_scoring.smtp_hook import MailServer, mail_server_error, smtp_connection
from include.errors import FraudError, MailAccessError, SettingError
from tests.plugins.conftest import StartServer

# The hook leaves its socket to the garbage collector if it cannot log in.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:Exception ignored in. <{what}:pytest.PytestUnraisableExceptionWarning")
    for what in ("ssl.SSLSocket", "socket.socket", "function _SelectorTransport.__del__")
]


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    yield
    gc.collect()


def connect(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    connection = {"conn_type": "smtp", "host": "smtp.bank.test", "extra": {"from_email": "f@bank.test"} | (extra or {})}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection | fields))
    return smtp_connection("smtp_default")


def send() -> None:
    with MailServer("smtp_default") as server:
        server.send_email_smtp(to=["a@bank.test"], subject="s", html_content="h", from_email=server.from_email)


@pytest.mark.parametrize(("off", "on"), [("false", "true"), ("0", "1"), ("No", "YES"), (False, True), ("", "on")])
def test_text_of_a_flag_is_parsed(monkeypatch: pytest.MonkeyPatch, off: object, on: object) -> None:
    extra = connect(monkeypatch, {"disable_tls": off, "disable_ssl": on}).extra_dejson
    assert (extra["disable_tls"], extra["disable_ssl"]) == (False, True)


@pytest.mark.parametrize("text", ["none", "nein", "None", "[]"])
def test_invalid_flag_is_rejected(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(SettingError, match=f"connection smtp_default: disable_tls='.*{text[1:3]}"):
        connect(monkeypatch, {"disable_tls": text})


def test_disable_tls_with_the_text_false_encrypts_login_and_mail(
    mail_server: StartServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = mail_server(offers=True, login="fraud", password="secret", extra={"disable_tls": "false"})
    (found,) = _check_mail_server()
    assert "STARTTLS" in found.text
    send()
    assert inbox.encrypted == [True]


def test_login_is_not_sent_to_a_server_without_the_required_encryption(mail_server: StartServer) -> None:
    inbox = mail_server(
        login="fraud", password="secret", extra={"disable_tls": False}, auth_require_tls=False,
        authenticator=lambda *_: pytest.fail("a login was sent"),
    )  # fmt: skip
    with pytest.raises(FraudError, match=r"accepts no mail: .*smtp_default requires STARTTLS"):
        list(_check_mail_server())
    assert inbox.logins == []


def test_mail_is_not_encrypted_if_the_connection_disables_it(mail_server: StartServer) -> None:
    inbox = mail_server(offers=True, login="fraud", password="secret", extra={"disable_tls": "true"})
    (found,) = _check_mail_server()
    assert "not encrypted: login and reports can be read in transit" in found.text
    send()
    assert (set(inbox.logins), inbox.encrypted) == ({"fraud"}, [False])


def test_tls_is_the_default_and_disables_starttls(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = connect(monkeypatch).extra_dejson
    assert (extra["disable_ssl"], extra["disable_tls"]) == (False, True)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login_beyond_ascii_is_sent_as_utf_8(
    mail_server: StartServer, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ["LOGIN", "PLAIN"]
    others.remove(mechanism)
    inbox = mail_server(offers=True, login="prüfer", password="gehéim€", auth_exclude_mechanism=others)
    inbox.known = LoginPassword("prüfer".encode(), "gehéim€".encode())
    send()
    assert inbox.logins == ["prüfer"]


def test_cram_md5_login_beyond_ascii_is_sent_as_utf_8(mail_server: StartServer) -> None:
    challenge, seen = b"<1@bank.test>", []

    async def take(server: SMTP, args: list[str]) -> AuthResult:
        seen.append(await server.challenge_auth(challenge))
        return AuthResult(success=True)

    def cram_md5(self: Any, server: SMTP, args: list[str]) -> Any:
        return take(server, args)

    inbox = mail_server(
        offers=True, login="prüfer", password="gehéim€", auth_exclude_mechanism=["PLAIN", "LOGIN"],
        handler={"auth_CRAM__MD5": cram_md5},
    )  # fmt: skip
    send()
    digest = hmac.new("gehéim€".encode(), challenge, "md5").hexdigest()
    assert seen == [f"prüfer {digest}".encode()]
    assert len(inbox.messages) == 1


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (535, b"5.7.139 Authentication unsuccessful, SmtpClientAuthentication\nis disabled for the Tenant"),
        (534, b"5.7.9 Application-specific password required"),
    ],
)
def test_error_of_a_rejected_login_has_the_servers_reply(
    monkeypatch: pytest.MonkeyPatch, code: int, reply: bytes
) -> None:
    connection = connect(monkeypatch, login="fraud", password="s3cret")
    error = mail_server_error(connection, smtplib.SMTPAuthenticationError(code, reply))
    assert isinstance(error, MailAccessError)
    assert f"rejects the login fraud: {code} {' '.join(reply.decode().split())}. If the server names no other" in str(
        error
    )


def test_password_is_removed_from_the_servers_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(monkeypatch, login="fraud", password="s3cret")
    error = mail_server_error(connection, smtplib.SMTPAuthenticationError(535, b"s3cret is wrong"))
    assert "s3cret" not in str(error)


def test_error_of_a_closed_connection_has_the_servers_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    error = mail_server_error(connect(monkeypatch), smtplib.SMTPConnectError(554, b"5.7.1 your network is blocked"))
    assert "accepts no mail: 554 5.7.1 your network is blocked" in str(error)


@pytest.mark.parametrize("host", ["", None, "  "])
def test_missing_host_is_named(monkeypatch: pytest.MonkeyPatch, host: str | None) -> None:
    with pytest.raises(SettingError, match="connection smtp_default names no host"):
        connect(monkeypatch, host=host)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"timeout": "ten"}, "timeout='ten': give a whole number of at least 1"),
        ({"timeout": 0}, "timeout=0: give a whole number of at least 1"),
        ({"retry_limit": -1}, "retry_limit=-1: give a whole number of at least 0"),
        ({"ssl_context": "off"}, "ssl_context='off': give default or none"),
        ({"from_email": "Fraud Team"}, "from_email='Fraud Team': 'Fraud Team' is not a mail address"),
        ({"from_email": "prüfer@bank.test"}, "mail cannot be sent to prüfer@bank.test: the part before @ is not ASCII"),
    ],
)
def test_invalid_field_is_named(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingError) as error:
        connect(monkeypatch, extra)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("fraud@bank.test", "fraud@bank.test"),
        ("Fraud Team <fraud@bank.test>", "Fraud Team <fraud@bank.test>"),
        ("Bank, Fraud <fraud@bank.test>", '"Bank, Fraud" <fraud@bank.test>'),
        ("Prüfung <fraud@bank.test>", "=?utf-8?q?Pr=C3=BCfung?= <fraud@bank.test>"),
    ],
)
def test_sender_with_a_display_name_keeps_its_address(monkeypatch: pytest.MonkeyPatch, given: str, header: str) -> None:
    assert connect(monkeypatch, {"from_email": given}).extra_dejson["from_email"] == header


def test_text_of_a_number_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a connection's URL all values are text."""
    uri = "smtp://u:p@smtp.bank.test:587?timeout=10&retry_limit=0&disable_ssl=true&from_email=f%40bank.test"
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", uri)
    extra = smtp_connection("smtp_default").extra_dejson
    assert (extra["timeout"], extra["retry_limit"], extra["disable_ssl"], extra["disable_tls"]) == (10, 0, True, False)


def test_error_of_airflows_hook_means_an_unreachable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    error = mail_server_error(connect(monkeypatch), AirflowException("Unable to connect to smtp server"))
    assert "Unable to connect to smtp server): check that it is running" in str(error)
