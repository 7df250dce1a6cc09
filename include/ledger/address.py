"""Where the ledger's database is, and how one connects to it: Airflow's connection `ledger_db`, or LOGGER_SQL_URI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from include.errors import LedgerAccessError, LedgerError, SettingError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

VARIABLE = "AIRFLOW_CONN_LEDGER_DB"
PLAIN_VARIABLE = "LOGGER_SQL_URI"
_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg")
_SAID_BEFORE = {"port", "dbname", "user", "password", "dsn"}
_CONNECT_SECONDS = 10
_ENDED, _NO_RIGHT = "57P01", "42501"
# A connection that is refused has no SQLSTATE: psycopg2 knows the sentence only.
_REFUSED = (
    "password authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist",
    "permission denied", "not permitted to log in",
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """`options` are libpq's own, as sslmode."""

    host: str
    database: str
    port: int = 5432
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Address:
        """Raises SettingError, which never quotes the address: it may hold a password."""
        if connection := environment.get(VARIABLE, "").strip():
            return cls.of_json(connection) if connection.startswith("{") else cls.of_uri(connection, VARIABLE)
        if uri := environment.get(PLAIN_VARIABLE, "").strip():
            return cls.of_uri(uri, PLAIN_VARIABLE)
        raise SettingError(
            f"the ledger's database is not known: set {VARIABLE} or {PLAIN_VARIABLE}, for instance to "
            "postgresql://user:password@host:5432/ledger"
        )

    @classmethod
    def of_uri(cls, uri: str, variable: str) -> Address:
        wrong = SettingError(f"{variable} cannot be used: give postgresql://user:password@host:5432/database")
        try:
            parts = urlsplit(uri)
            port = parts.port or cls.port
        except ValueError:
            raise wrong from None
        database = unquote(parts.path.strip("/"))
        options = {name: value for name, value in parse_qsl(parts.query) if name != "__extra__"}
        # libpq takes them there as well: a socket's folder has no other place.
        host = options.pop("host", None) or unquote(parts.hostname or "")
        if parts.scheme not in _SCHEMES or not host or not database or options.keys() & _SAID_BEFORE:
            raise wrong
        user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
        return cls(host, database, port, user, password, options)

    @classmethod
    def of_json(cls, text: str) -> Address:
        try:
            given = json.loads(text)
            extra = given.get("extra") or {}
            options = json.loads(extra) if isinstance(extra, str) else extra
            return cls.of_connection(
                given.get("host"), given.get("schema"), given.get("port"), given.get("login"), given.get("password"),
                options,
            )  # fmt: skip
        except (ValueError, TypeError, AttributeError):
            raise SettingError(
                f'{VARIABLE} cannot be read: give {{"conn_type": "postgres", "host": …, "login": …, "password": …, '
                '"schema": "ledger"}'
            ) from None

    @classmethod
    def of_connection(
        cls,
        host: str | None,
        database: str | None,
        port: int | str | None,
        user: str | None,
        password: str | None,
        options: Mapping[str, object],
    ) -> Address:
        """As Airflow's connection has them; raises SettingError where there is no host or no database."""
        if not host or not database:
            missing = "host" if not host else "database (its field schema)"
            raise SettingError(f"the connection ledger_db names no {missing}")
        texts = {name: str(value) for name, value in options.items() if isinstance(value, str | int | float)}
        return cls(host, database, int(port or cls.port), user or None, password or None, texts)

    def connect(self, name: str) -> Connection:
        """`name` is what PostgreSQL shows of it. Raises LedgerError; LedgerAccessError where a wrong login is."""
        import psycopg2

        # libpq's words, so that what the address does not say still comes from PGPASSWORD and the like.
        known = {"user": self.user, "password": self.password, "application_name": name[:63]}
        settings: dict[str, Any] = {
            # One that died, or a network that is gone, must not hold a run until the kernel gives up.
            "connect_timeout": str(_CONNECT_SECONDS), "keepalives_idle": "30", "keepalives_interval": "10",
            "tcp_user_timeout": "60000",
            **self.options, **{name: value for name, value in known.items() if value},
        }  # fmt: skip
        try:
            connection: Connection = psycopg2.connect(host=self.host, port=self.port, dbname=self.database, **settings)
            with connection, connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
        except psycopg2.Error as error:
            raise _failure(self, "does not answer", error) from None
        return connection

    @contextmanager
    def opened(self, name: str) -> Iterator[Connection]:
        """The connection, closed at the end; what the database says while it is used is told in one line."""
        import psycopg2

        connection = self.connect(name)
        try:
            yield connection
        except psycopg2.Error as error:
            # Not from it: what the database says of a COPY quotes its row.
            raise _failure(self, "failed", error) from None
        finally:
            connection.close()


def _failure(address: Address, what: str, error: Exception) -> LedgerError:
    """The database's own sentence; what follows it may quote rows."""
    import psycopg2

    cause = error.__context__
    if isinstance(error, psycopg2.InterfaceError) and isinstance(cause, psycopg2.Error):
        # A connection that is gone cannot be rolled back either; what ended it is the error to show.
        return _failure(address, what, cause)
    diag = getattr(error, "diag", None)
    text = getattr(diag, "message_primary", None) or str(error).strip().partition("\n")[0]
    line = f"the ledger's database at {address} {what}: {text or type(error).__name__}"
    if getattr(error, "pgcode", None) == _ENDED or "closed the connection" in text:
        line += " (the server was stopped, or a newer attempt has taken over)"
    if getattr(error, "pgcode", None) == _NO_RIGHT:
        return LedgerAccessError(f"{line}: the user of ledger_db lacks the right to it")
    if getattr(error, "pgcode", None) is None and any(words in str(error) for words in _REFUSED):
        return LedgerAccessError(f"{line}: check login, password and database in the connection ledger_db")
    return LedgerError(line)
