"""Send mail through Airflow's SMTP hook, with a connection whose fields are validated, and describe SMTP errors."""

from __future__ import annotations

import json
import re
import smtplib
import ssl
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk import Connection

from fraud_scoring.airflow_connections import require_connection
from include.errors import FraudError, MailAccessError, ReportError, SettingError
from include.mail_addresses import encode_sender

NOT_ENCRYPTED = "not encrypted"
_MAX_REPLY_LENGTH = 250
_LONG_NUMBER = re.compile(r"\d{12,}")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_SSL_CONTEXTS = (None, "default", "none")


class MailServer(SmtpHook):
    """Send mail as Airflow's hook does, with logins that may contain any character.

    `refused` maps each recipient that the server refused for the last accepted mail to the server's reply. Airflow's
    hook ignores these.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(smtp_conn_id=conn_id)
        self.refused: dict[str, str] = {}

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return the validated connection. Raise SettingError as `smtp_connection` does."""
        return smtp_connection(conn_id)

    def _build_client(self) -> smtplib.SMTP:
        client_class = _TlsClient if self.use_ssl else _Client
        return client_class(**self._build_client_kwargs(is_async=False))

    def send_email_smtp(self, **mail: Any) -> None:
        """Send a mail, and set `refused`. Raise SMTPRecipientsRefused if the server refused every recipient."""
        super().send_email_smtp(**mail)
        client: Any = self._smtp_client
        self.refused = {address: _reply(*reply) for address, reply in client.refused.items()}


class _Utf8(str):
    """Text that is always encoded as UTF-8, as RFC 4616 says of logins: smtplib would encode it as ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "strict") -> bytes:
        return super().encode("utf-8", errors)


class _AnyLogin(smtplib.SMTP):
    refused: Mapping[str, tuple[int, bytes]] = {}

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> Any:
        return super().login(_Utf8(user), _Utf8(password), initial_response_ok=initial_response_ok)

    def auth(self, mechanism: str, authobject: Callable[..., Any], *, initial_response_ok: bool = True) -> Any:
        def respond(challenge: bytes | None = None) -> str | None:
            text = authobject() if challenge is None else authobject(challenge)
            return None if text is None else _Utf8(text)

        return super().auth(mechanism, respond, initial_response_ok=initial_response_ok)  # type: ignore[arg-type]

    def sendmail(self, *args: Any, **kwargs: Any) -> Any:
        self.refused = super().sendmail(*args, **kwargs)
        return self.refused


class _Client(_AnyLogin):
    pass


class _TlsClient(_AnyLogin, smtplib.SMTP_SSL):
    pass


def smtp_connection(name: str) -> Connection:
    """Return the connection with its extra validated and converted: flags to bool, `from_email` to the header From.

    Raise SettingError if it does not exist, has no host or no sender, or has an invalid field.
    """
    connection = require_connection(name)
    if not (host := (connection.host or "").strip()):
        raise SettingError(f"connection {name} names no host: add the mail server's name to its field host")
    extra = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}
    if not extra.get("from_email"):
        raise SettingError(f"connection {name} names no sender: add from_email to its extra field")
    extra["from_email"] = encode_sender(f"connection {name}: from_email", str(extra["from_email"]))
    for flag in ("disable_ssl", "disable_tls"):
        extra[flag] = _flag(name, flag, extra.get(flag, False))
    # With both false the hook would send STARTTLS inside TLS, which no server supports.
    extra["disable_tls"] = extra["disable_tls"] or not extra["disable_ssl"]
    for field, minimum in (("timeout", 1), ("retry_limit", 0)):
        if field in extra:
            extra[field] = _number(name, field, extra[field], minimum)
    if extra.get("ssl_context") not in _SSL_CONTEXTS:
        raise SettingError(f"connection {name}: ssl_context={extra['ssl_context']!r}: give default or none")
    validated = copy(connection)
    validated.host, validated.extra = host, json.dumps(extra)
    return validated


def _flag(name: str, flag: str, value: object) -> bool:
    """Return the flag as bool. Airflow's hook takes the text "false" for true, and would send mail unencrypted."""
    text = str(value).strip().lower()
    if text not in _FLAGS:
        raise SettingError(f"connection {name}: {flag}={value!r}: give true or false")
    return _FLAGS[text]


def _number(name: str, field: str, value: object, minimum: int) -> int:
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        number = minimum - 1
    if number < minimum:
        raise SettingError(f"connection {name}: {field}={value!r}: give a whole number of at least {minimum}")
    return number


def server_address(server: Connection) -> str:
    """Return host:port, for logs and errors."""
    return f"{server.host}:{server.port or 'default port'}"


def encryption(server: Connection) -> str:
    """Return "TLS", "STARTTLS" or NOT_ENCRYPTED, by a connection that `smtp_connection` returned."""
    extra = server.extra_dejson
    return "TLS" if not extra["disable_ssl"] else "STARTTLS" if not extra["disable_tls"] else NOT_ENCRYPTED


def describe_mail_error(error: Exception) -> str:
    """Return the error's class, and the text of the server or of this product. Other texts might quote a payment."""
    if isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
        return f"{type(error).__name__}: {server_reply(error)}"
    return f"{type(error).__name__}: {error}" if isinstance(error, FraudError) else type(error).__name__


def server_reply(error: Exception) -> str:
    """Return the server's reply in one line: code and text, for each recipient if it refused all of them.

    Without a reply, return the error's class and text.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return ", ".join(f"{address}: {_reply(*reply)}" for address, reply in error.recipients.items())
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    return f"{type(error).__name__}: {error}"


def describe_refusals(refused: Mapping[str, str]) -> str:
    """Return the addresses of `MailServer.refused` with the server's replies, in one line."""
    return ", ".join(f"{address} ({reply})" for address, reply in refused.items())


def _reply(code: int, message: bytes | str) -> str:
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    # A server that refuses a mail because of its content may quote a card number.
    return f"{code} {_LONG_NUMBER.sub('…', ' '.join(text.split()))}"[:_MAX_REPLY_LENGTH].rstrip()


def mail_server_error(server: Connection, error: Exception) -> ReportError:
    """Return the error to raise if a mail server accepts no mail at all: MailAccessError if a retry cannot help."""
    name = f"{server.conn_id} ({server_address(server)})"
    # Codes from 500 on are permanent; 454 means that the server cannot check the login at the moment.
    if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
        return MailAccessError(
            f"{name} rejects the login {server.login}: {_without(server.password, server_reply(error))}. If the server "
            f"names no other cause, check the login and password in {server.conn_id}"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailAccessError(
            f"the certificate of {name} is not trusted ({error.verify_message}): add its certificate authority to the "
            "machine's authorities or to the file that SSL_CERT_FILE names"
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return ReportError(f"{name} accepts no mail: {_without(server.password, server_reply(error))}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return ReportError(
            f"{name} accepts no mail: {error}. {server.conn_id} requires {encryption(server)}: check that the server "
            f"offers it, and logins, on this port; otherwise correct port and encryption in {server.conn_id}"
        )
    return ReportError(
        f"{name} accepts no mail ({type(error).__name__}: {error}): check that it is running, and host, port and "
        f"encryption in {server.conn_id}"
    )


def _without(password: str | None, text: str) -> str:
    return text.replace(password, "***") if password else text
