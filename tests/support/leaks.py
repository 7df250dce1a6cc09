"""Looks for texts wherever Airflow keeps anything: its logs, and every column of every table of its database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import psycopg2
from psycopg2 import sql

from tests.support.live_stack import LiveStack

AIRFLOW_PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class Leaks:
    def __init__(self, stack: LiveStack) -> None:
        self._logs = [
            stack.home / "airflow" / "logs",
            *(stack.home / "logs" / f"{part}.log" for part in AIRFLOW_PARTS),
        ]
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
            for path in [place] if place.is_file() else place.rglob("*"):
                if path.is_file():
                    yield str(path), path.read_text(errors="replace")
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
