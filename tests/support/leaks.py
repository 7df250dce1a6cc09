"""Looks for secrets and card numbers wherever a stack keeps anything: all logs, Airflow's and MLflow's whole databases,
and mail. Secrets must not be in the ledger either, whose database is there to hold card numbers.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg2
from psycopg2 import sql
from pyarrow.fs import FileSelector, S3FileSystem

from dev.stack.home import SECRETS
from include.ledger.connection import LedgerConnection
from tests.support import kafka_log
from tests.support.live_stack import LiveStack

# As they are, or inside of bytes, which PostgreSQL shows as hexadecimal digits.
_DIGITS = re.compile(r"[0-9]{12,}|(?:3[0-9]){12,}")


def require_no_leaks(stack: LiveStack) -> None:
    """Check at the end of a stack that nothing keeps its secrets or a card number of its topic_1."""
    leaks = Leaks(stack, mail=True)
    made = secrets(stack)
    assert leaks.find(made, cards(stack)) | leaks.find_in_ledger(made) == set()
    assert [name for name in leaks.looked_at if name.endswith("logs/kafka.log")]


def secrets(stack: LiveStack) -> set[str]:
    made = set(json.loads((stack.home / "secrets.json").read_text()).values())
    assert len(made) == len(SECRETS)
    return {*made, stack.env["AIRFLOW__CORE__FERNET_KEY"]}


def cards(stack: LiveStack) -> set[str]:
    found = set()
    for message in kafka_log.read_all({**stack.kafka, "group.id": "fraud_scoring"}, "topic_1"):
        try:
            payments = json.loads(message.value() or b"")
            place = payments["columns"].index("cc_num")
            found |= {str(row[place]) for row in payments["data"]}
        except (ValueError, TypeError, LookupError, AttributeError):
            # Some are broken on purpose.
            continue
    return {card for card in found if len(card) >= 12 and card.isascii() and card.isdigit()}


class DataLocations(Protocol):
    """The places in which a stack keeps data."""

    @property
    def home(self) -> Path: ...
    @property
    def maildir(self) -> Path: ...
    @property
    def env(self) -> Mapping[str, str]: ...


class Leaks:
    def __init__(self, stack: DataLocations, *, mail: bool = False) -> None:
        """`mail`: there too, where names and addresses may stand, but no card number and no secret."""
        self._logs = [stack.home / "airflow" / "logs", *stack.home.glob("worker-*/logs"), stack.home / "logs"]
        self._mails = stack.maildir if mail else None
        self._env = stack.env
        self.looked_at: set[str] = set()
        """Files, and tables with any row."""

    def find(self, texts: Iterable[str], cards: Iterable[str] = ()) -> set[str]:
        """Return the files and tables that hold a secret or card, except the ledger's."""
        pattern = _any_of(texts)
        numbers = set(cards)
        lengths = {len(card) for card in numbers}
        found = set()
        for name, content in self._everything():
            self.looked_at.add(name)
            if pattern.search(content) or (numbers and _holds(content, numbers, lengths)):
                found.add(name)
        return found

    def find_in_ledger(self, texts: Iterable[str]) -> set[str]:
        """Return the ledger's tables that hold a secret."""
        pattern = _any_of(texts)
        found = set()
        for name, content in _rows(self._ledger, "ledger"):
            self.looked_at.add(name)
            if pattern.search(content):
                found.add(name)
        return found

    def _everything(self) -> Iterator[tuple[str, str]]:
        for place in self._logs:
            for path in place.rglob("*"):
                if path.is_file():
                    yield str(path), path.read_text(errors="replace")
        yield from self._remote_logs()
        for path in self._mails.glob("*/*") if self._mails else ():
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            yield str(path), str(message.items())
            for part in message.walk():
                if not part.is_multipart():
                    yield str(path), bytes(part.get_payload(decode=True) or b"").decode(errors="replace")
        for url in (self._airflow, self._mlflow):
            yield from _rows(url, "public")

    def _remote_logs(self) -> Iterator[tuple[str, str]]:
        folder = self._env.get("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "")
        if not folder:
            return
        store = S3FileSystem(
            access_key=self._env["AWS_ACCESS_KEY_ID"],
            secret_key=self._env["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=self._env["AWS_ENDPOINT_URL_S3"],
        )
        for file in store.get_file_info(FileSelector(folder.removeprefix("s3://"), recursive=True)):
            if file.is_file:
                with store.open_input_stream(file.path) as stream:
                    yield f"s3://{file.path}", stream.read().decode(errors="replace")

    @property
    def _airflow(self) -> str:
        return self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2", "postgresql")

    @property
    def _mlflow(self) -> str:
        """Beside Airflow's where the superuser's address is known."""
        return self._env.get("MLFLOW_BACKEND_STORE_URI") or f"{self._airflow.rpartition('/')[0]}/mlflow"

    @property
    def _ledger(self) -> str:
        found = LedgerConnection.from_environment(self._env)
        return f"postgresql://{found.user}:{found.password}@{found}"


def _rows(url: str, schema: str) -> Iterator[tuple[str, str]]:
    """Each row of each table, which is named `database.table`."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE'",
            [schema],
        )
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT entry::text FROM {} AS entry").format(sql.Identifier(schema, table)))
            for (row,) in cursor:
                yield f"{connection.info.dbname}.{table}", row


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    words = sorted(texts)
    return re.compile("|".join(map(re.escape, [*words, *(word.encode().hex() for word in words)])) or "(?!)")


def _holds(content: str, numbers: set[str], lengths: set[int]) -> bool:
    for found in _DIGITS.findall(content):
        runs = [found]
        if len(found) % 2 == 0 and set(found[::2]) == {"3"}:
            runs.append(bytes.fromhex(found).decode())
        for run in runs:
            if any(run[at : at + length] in numbers for length in lengths for at in range(len(run) - length + 1)):
                return True
    return False
