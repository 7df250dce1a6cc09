"""The mail catcher: keeps every message it is sent in a Maildir and shows them on a page."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack.certificates import certificates
from dev.stack.home import LOOPBACK, Home
from dev.stack.part import ROOT, Part, http_status

USER = "fraud"


class MailCatcher(Part):
    name = "mail"
    ports = ("smtp", "mail_page")

    def command(self, home: Home) -> list[str]:
        ports = [LOOPBACK, str(home.port("smtp")), str(home.port("mail_page"))]
        return [sys.executable, "-m", "dev.stack.mail_server", *ports, str(home.data(self.name) / "maildir")]

    def environment(self, home: Home) -> Mapping[str, str]:
        if not home.options.secure:
            return {"PYTHONPATH": str(ROOT)}
        return {
            "PYTHONPATH": str(ROOT),
            "SMTP_CERTIFICATE": str(certificates(home).server),
            "SMTP_USER": USER,
            "SMTP_PASSWORD": home.secret("smtp"),
        }

    def exports(self, home: Home) -> Mapping[str, str]:
        return {
            "MAILDIR": str(home.data(self.name) / "maildir"),
            "MAIL_URL": f"http://{home.address('mail_page')}",
        }

    def check(self, home: Home, started: float) -> None:
        # The page is served from the moment at which the SMTP port listens.
        http_status(f"http://{home.address('mail_page')}/")
