"""A real SMTP server for tests that send mail: plain, with STARTTLS and a login, or one that refuses."""

from __future__ import annotations

import email
import email.policy
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Inbox:
    """aiosmtpd's handler. `refusals`: the replies to the next messages instead of accepting them. `stop`: ends the
    server, so that it refuses connections. `known`: the login that it accepts."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.senders: list[str | None] = []
        self.recipients: list[list[str]] = []
        self.refusals: list[str] = []
        self.refused_recipients: dict[str, str] = {}
        self.known = LoginPassword(b"fraud", b"secret")
        self.logins: list[str] = []
        self.encrypted: list[bool] = []
        self.stop: Callable[[], None] = lambda: None

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused_recipients:
            return self.refused_recipients[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refusals:
            return self.refusals.pop(0)
        content = envelope.original_content or b""
        self.messages.append(email.message_from_bytes(content, policy=email.policy.default))  # type: ignore[arg-type]
        self.senders.append(envelope.mail_from)
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=data == self.known, handled=False)


StartServer = Callable[..., Inbox]


@pytest.fixture
def mail_server(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> Iterator[StartServer]:
    """Start a server, and set the connection smtp_default to it; `extra`, `login` and `password` change the connection.

    With `tls` the server requires STARTTLS and a login; with `offers` it accepts both and requires neither. `handler`
    adds methods to the inbox.
    """
    with ExitStack() as stack:

        def start(
            *,
            tls: bool = False,
            offers: bool = False,
            extra: dict[str, Any] | None = None,
            login: str = "",
            password: str = "",
            handler: Mapping[str, Callable[..., Any]] | None = None,
            **smtp: Any,
        ) -> Inbox:
            inbox: Inbox = type("Inbox", (Inbox,), dict(handler or {}))()
            if tls or offers:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(certificate)
                smtp |= {"tls_context": context, "authenticator": inbox.authenticate}
            if tls:
                smtp |= {"require_starttls": True, "auth_required": True}
            if offers:
                smtp |= {"auth_require_tls": False}
            controller = Controller(inbox, hostname="127.0.0.1", port=0, **smtp)
            # The controller connects to `port` to check that it runs, so 0 cannot be used.
            controller.port = _free_port()
            controller.start()
            running = stack.enter_context(ExitStack())
            running.callback(controller.stop)
            inbox.stop = running.close
            settings = {"disable_ssl": True, "disable_tls": not tls, "from_email": "fraud@bank.test", "timeout": 5}
            connection = {
                "conn_type": "smtp",
                "host": "127.0.0.1",
                "port": controller.port,
                "login": login,
                "password": password,
                "extra": settings | (extra or {}),
            }
            monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
            return inbox

        yield start


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, its key and its certificate authority, in one file."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(issued.private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes())
    return path
