"""Looks for texts wherever a stack keeps anything: all logs, every table of Airflow's database, and mail."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterable, Iterator

import psycopg2
from psycopg2 import sql

from tests.support.live_stack import LiveStack


class Leaks:
    def __init__(self, stack: LiveStack, *, mail: bool = False) -> None:
        """`mail`: there too, where names and addresses may stand, but no card number and no secret."""
        self._logs = [stack.home / "airflow" / "logs", stack.home / "logs"]
        self._mails = stack.maildir if mail else None
        self._database = stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2", "postgresql")
        self.looked_at: set[str] = set()

    def find(self, texts: Iterable[str]) -> set[str]:
        """Files and tables that hold one of them, as it is or inside of bytes, which PostgreSQL shows as digits."""
        words = sorted(texts)
        pattern = re.compile("|".join(map(re.escape, [*words, *(word.encode().hex() for word in words)])))
        found = set()
        for name, content in self._everything():
            self.looked_at.add(name)
            if pattern.search(content):
                found.add(name)
        return found

    def _everything(self) -> Iterator[tuple[str, str]]:
        for place in self._logs:
            for path in place.rglob("*"):
                if path.is_file():
                    yield str(path), path.read_text(errors="replace")
        for path in self._mails.glob("*/*") if self._mails else ():
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            yield str(path), str(message.items())
            for part in message.walk():
                if not part.is_multipart():
                    yield str(path), bytes(part.get_payload(decode=True) or b"").decode(errors="replace")
        connection = psycopg2.connect(self._database)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
                for (table,) in cursor.fetchall():
                    cursor.execute(sql.SQL("SELECT entry::text FROM {} AS entry").format(sql.Identifier(table)))
                    for (row,) in cursor:
                        yield table, row
        finally:
            connection.close()
