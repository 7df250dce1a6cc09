"""The mail server behind an SMTP connection: Airflow's hook, on a connection that was read strictly."""

from __future__ import annotations

import json
import re
import smtplib
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk import Connection

from fraud_scoring.airflow_connections import require_connection
from include.errors import FraudError, MailAccessError, ReportError, SettingError
from include.mail_addresses import encode_sender

NOT_ENCRYPTED = "not encrypted"
_LONGEST_ANSWER = 250
_LONG_NUMBER = re.compile(r"\d{12,}")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_SSL_CONTEXTS = (None, "default", "none")


class MailServer(SmtpHook):
    """Send mail as Airflow's hook does. `refused` maps each recipient that the server refused for the last accepted
    mail to its answer, which the hook drops. Logins may contain any character.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(smtp_conn_id=conn_id)
        self.refused: dict[str, str] = {}

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Raises SettingError as `smtp_connection` does."""
        return smtp_connection(conn_id)

    def _build_client(self) -> smtplib.SMTP:
        kind = _TlsClient if self.use_ssl else _Client
        return kind(**self._build_client_kwargs(is_async=False))

    def send_email_smtp(self, **mail: Any) -> None:
        super().send_email_smtp(**mail)
        client: Any = self._smtp_client
        self.refused = {address: _answer(*answer) for address, answer in client.refused.items()}


class _Utf8(str):
    """smtplib encodes a login as ASCII; RFC 4616 has it as UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "strict") -> bytes:
        return super().encode("utf-8", errors)


class _Logins(smtplib.SMTP):
    refused: Mapping[str, tuple[int, bytes]] = {}

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> Any:
        return super().login(_Utf8(user), _Utf8(password), initial_response_ok=initial_response_ok)

    def auth(self, mechanism: str, authobject: Callable[..., Any], *, initial_response_ok: bool = True) -> Any:
        def answer(challenge: bytes | None = None) -> str | None:
            text = authobject() if challenge is None else authobject(challenge)
            return None if text is None else _Utf8(text)

        return super().auth(mechanism, answer, initial_response_ok=initial_response_ok)  # type: ignore[arg-type]

    def sendmail(self, *args: Any, **kwargs: Any) -> Any:
        self.refused = super().sendmail(*args, **kwargs)
        return self.refused


class _Client(_Logins):
    pass


class _TlsClient(_Logins, smtplib.SMTP_SSL):
    pass


def smtp_connection(name: str) -> Connection:
    """Return the connection with its extra as the hook must read it: flags as true or false, the sender as the header
    From takes it. Raise SettingError if it does not exist, has no host or no sender, or an invalid field.
    """
    connection = require_connection(name)
    if not (connection.host or "").strip():
        raise SettingError(f"connection {name} names no host: add the mail server's name to its field host")
    extra = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}
    if not extra.get("from_email"):
        raise SettingError(f"connection {name} names no sender: add from_email to its extra field")
    extra["from_email"] = encode_sender(f"connection {name}: from_email", str(extra["from_email"]))
    for flag in ("disable_ssl", "disable_tls"):
        extra[flag] = _flag(name, flag, extra.get(flag, False))
    # Without both the hook would ask for STARTTLS inside TLS, which no server has.
    extra["disable_tls"] = extra["disable_tls"] or not extra["disable_ssl"]
    for number, least in (("timeout", 1), ("retry_limit", 0)):
        if number in extra:
            extra[number] = _number(name, number, extra[number], least)
    if extra.get("ssl_context") not in _SSL_CONTEXTS:
        raise SettingError(f"connection {name}: ssl_context={extra['ssl_context']!r}: give default or none")
    return _copy(connection, json.dumps(extra))


def _copy(connection: Connection, extra: str) -> Connection:
    return Connection(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type,
        host=(connection.host or "").strip(),
        login=connection.login,
        password=connection.password,
        port=connection.port,
        extra=extra,
    )


def _flag(name: str, flag: str, value: object) -> bool:
    """Airflow's hook takes any text for true, "false" as well: mail, and the login, would go unencrypted."""
    text = str(value).strip().lower()
    if text not in _FLAGS:
        raise SettingError(f"connection {name}: {flag}={value!r}: give true or false")
    return _FLAGS[text]


def _number(name: str, field: str, value: object, least: int) -> int:
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        number = least - 1
    if number < least:
        raise SettingError(f"connection {name}: {field}={value!r}: give a whole number of at least {least}")
    return number


def address(server: Connection) -> str:
    return f"{server.host}:{server.port or 'default port'}"


def encryption(server: Connection) -> str:
    extra = server.extra_dejson
    return "TLS" if not extra["disable_ssl"] else "STARTTLS" if not extra["disable_tls"] else NOT_ENCRYPTED


def mail_error(error: Exception) -> str:
    """Return the error's kind, and what the server or this product says of it; no foreign text."""
    if isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
        return f"{type(error).__name__}: {server_answer(error)}"
    return f"{type(error).__name__}: {error}" if isinstance(error, FraudError) else type(error).__name__


def server_answer(error: Exception) -> str:
    """Return what the server said, in one line: code and sentence, by recipient where it refused them; else the error's
    kind and text."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return ", ".join(f"{one}: {_answer(*answer)}" for one, answer in error.recipients.items())
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    return f"{type(error).__name__}: {error}"


def listed(refused: Mapping[str, str]) -> str:
    return ", ".join(f"{address} ({answer})" for address, answer in refused.items())


def _answer(code: int, sentence: bytes | str) -> str:
    text = sentence.decode("utf-8", "replace") if isinstance(sentence, bytes) else str(sentence)
    # A server that refuses a mail for its content may quote it.
    return f"{code} {_LONG_NUMBER.sub('…', ' '.join(text.split()))}"[:_LONGEST_ANSWER].rstrip()


def mail_failure(server: Connection, error: Exception) -> ReportError:
    """What the task and `fraud check` say of a mail server that takes nothing, whatever the mail."""
    name = f"{server.conn_id} ({address(server)})"
    # From 500 on it is refused for good; 454 is a server that cannot tell just now.
    if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
        return MailAccessError(
            f"{name} refuses {server.login}: {_without(server.password, server_answer(error))}. If the server names no "
            f"other cause, check the login and password in {server.conn_id}"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailAccessError(
            f"the certificate of {name} is not trusted ({error.verify_message}): add its authority to the machine's or "
            "to the file that SSL_CERT_FILE names"
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return ReportError(f"{name} takes no mail: {_without(server.password, server_answer(error))}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return ReportError(
            f"{name} takes no mail: {error}. {server.conn_id} asks for {encryption(server)}: check that the server "
            f"offers it, and logins, on this port; otherwise correct port and encryption in {server.conn_id}"
        )
    return ReportError(
        f"{name} takes no mail ({type(error).__name__}: {error}): is it up, and are host, port and encryption in "
        f"{server.conn_id} right?"
    )


def _without(password: str | None, text: str) -> str:
    return text.replace(password, "***") if password else text
