"""Mail that arrived in the stack's Maildir since the inbox was created."""

from __future__ import annotations

import email
import email.policy
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path


class Inbox:
    def __init__(self, maildir: Path) -> None:
        self._maildir = maildir
        self._known = set(self._files())

    def messages(self) -> list[EmailMessage]:
        """Return the messages in the order in which they arrived."""
        fresh = [path for path in self._files() if path not in self._known]
        fresh.sort(key=lambda path: path.stat().st_mtime_ns)
        return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in fresh]

    def wait(
        self, count: int = 1, matching: Callable[[EmailMessage], bool] = lambda message: True, seconds: float = 60
    ) -> list[EmailMessage]:
        """Wait for the given number of matching messages, and return them."""
        deadline = time.monotonic() + seconds
        while len(found := [message for message in self.messages() if matching(message)]) < count:
            if time.monotonic() > deadline:
                subjects = [str(message["Subject"]) for message in self.messages()]
                raise AssertionError(f"{len(found)} of {count} mails within {seconds:.0f} s; there are {subjects}")
            time.sleep(0.1)
        return found

    def _files(self) -> list[Path]:
        return [*self._maildir.glob("new/*"), *self._maildir.glob("cur/*")]
