"""Serve SMTP into a Maildir, and a page that shows the messages. The part `mail` runs it."""

from __future__ import annotations

import asyncio
import email
import email.policy
import mailbox
import os
import ssl
import sys
import threading
from datetime import datetime
from email.message import EmailMessage
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

STYLE = """body{font:15px system-ui;margin:2em auto;max-width:60em;padding:0 1em}
td{padding:.3em 1em .3em 0}iframe{width:100%;height:70vh;border:1px solid #ccc}"""


class MailStore:
    """Store messages byte for byte, as aiosmtpd's handler."""

    def __init__(self, maildir: Path) -> None:
        """Create the Maildir if it is missing."""
        self._maildir = mailbox.Maildir(maildir, create=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store one message."""
        self._maildir.add(envelope.original_content or b"")
        return "250 kept"


class MailPage(BaseHTTPRequestHandler):
    """Serve `/` with all messages, `/<key>` with one, `/<key>/body` with its HTML, `/<key>/<n>` with an attachment."""

    maildir: Path

    def do_GET(self) -> None:
        """Answer one request."""
        key, _, rest = unquote(self.path).strip("/").partition("/")
        messages = {
            path.name.partition(":")[0]: path for path in [*self.maildir.glob("new/*"), *self.maildir.glob("cur/*")]
        }
        if not key:
            self._answer(self._list(messages))
        elif key not in messages:
            self._answer("<p>No such message.</p>", status=404)
        else:
            message = email.message_from_bytes(messages[key].read_bytes(), policy=email.policy.default)
            self._message(key, message, rest)

    def _message(self, key: str, message: EmailMessage, rest: str) -> None:
        attachments = list(message.iter_attachments())
        if not rest:
            headers = "".join(
                f"<tr><td>{name}<td>{escape(str(message.get(name, '')))}" for name in ("Date", "From", "To", "Subject")
            )
            links = "".join(
                f'<tr><td>Attachment<td><a href="/{quote(key)}/{number}">{escape(part.get_filename() or "unnamed")}</a>'
                for number, part in enumerate(attachments)
            )
            # In the sandbox a message can run no script and send no form.
            frame = f'<iframe sandbox src="/{quote(key)}/body"></iframe>'
            self._answer(f'<p><a href="/">All mail</a><table>{headers}{links}</table>{frame}')
        elif rest == "body":
            body = message.get_body(("html", "plain"))
            text = str(body.get_content()) if body else ""
            html = body is not None and body.get_content_type() == "text/html"
            self._send(
                text if html else f"<pre>{escape(text)}</pre>",
                {"Content-Security-Policy": "sandbox; script-src 'none'"},
            )
        elif rest.isdigit() and int(rest) < len(attachments):
            part = attachments[int(rest)]
            content = part.get_payload(decode=True)
            name = quote(part.get_filename() or "attachment")
            headers_ = {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            }
            self._send(content if isinstance(content, bytes) else b"", headers_)
        else:
            self._answer("<p>No such part.</p>", status=404)

    def _list(self, messages: dict[str, Path]) -> str:
        rows = []
        for key, path in sorted(messages.items(), key=lambda item: item[1].stat().st_mtime, reverse=True)[:200]:
            with path.open("rb") as file:
                headers = email.message_from_binary_file(file, policy=email.policy.default)
            when = datetime.fromtimestamp(path.stat().st_mtime).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            subject, to = escape(str(headers.get("Subject", "(no subject)"))), escape(str(headers.get("To", "")))
            rows.append(f'<tr><td>{when}<td><a href="/{quote(key)}">{subject}</a><td>{to}')
        return f"<h1>Mail: {len(messages)}</h1><table>{''.join(rows)}</table>"

    def _answer(self, body: str, status: int = 200) -> None:
        self._send(f"<!doctype html><meta charset=utf-8><title>Mail</title><style>{STYLE}</style>{body}", {}, status)

    def _send(self, content: str | bytes, headers: dict[str, str], status: int = 200) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in (
            {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(data))} | headers
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: health checks would fill the log."""


def _access() -> dict[str, Any]:
    """Return aiosmtpd's options for STARTTLS and a login, empty unless the environment names a certificate."""
    certificate = os.environ.get("SMTP_CERTIFICATE")
    if not certificate:
        return {}
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    known = os.environ["SMTP_USER"].encode(), os.environ["SMTP_PASSWORD"].encode()

    def authenticator(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        right = isinstance(given, LoginPassword) and (given.login, given.password) == known
        # With handled=False aiosmtpd itself answers a wrong login with 535.
        return AuthResult(success=right, handled=False)

    return {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": authenticator}


async def serve(host: str, smtp_port: int, page_port: int, maildir: Path) -> None:
    """Serve SMTP and the page until the process ends."""
    keep, access = MailStore(maildir), _access()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(keep, hostname="localhost", **access), host, smtp_port
    )
    MailPage.maildir = maildir
    page = ThreadingHTTPServer((host, page_port), MailPage)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
