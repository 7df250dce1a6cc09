"""Run a mail server that keeps each message in a Maildir and shows it on a page."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack.certificates import certificates
from dev.stack.home import LOOPBACK, StackHome
from dev.stack.part import ROOT, Part, http_status

USER = "fraud"


class MailCatcher(Part):
    """Run `dev.stack.mail_server`."""

    name = "mail"
    ports = ("smtp", "mail_page")

    def command(self, home: StackHome) -> list[str]:
        """Return the command with both ports and the Maildir."""
        ports = [LOOPBACK, str(home.port("smtp")), str(home.port("mail_page"))]
        return [sys.executable, "-m", "dev.stack.mail_server", *ports, str(home.data(self.name) / "maildir")]

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return certificate and login for a secure stack."""
        if not home.options.secure:
            return {"PYTHONPATH": str(ROOT)}
        return {
            "PYTHONPATH": str(ROOT),
            "SMTP_CERTIFICATE": str(certificates(home).server),
            "SMTP_USER": USER,
            "SMTP_PASSWORD": home.secret("smtp"),
        }

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return the Maildir and the page's address."""
        return {
            "MAILDIR": str(home.data(self.name) / "maildir"),
            "MAIL_URL": f"http://{home.address('mail_page')}",
        }

    def check(self, home: StackHome, started: float) -> None:
        """Request the page, which is served once the SMTP port listens."""
        http_status(f"http://{home.address('mail_page')}/")
