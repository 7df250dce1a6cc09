"""Where the ledger's database is, and how one connects to it: Airflow's connection `ledger_db`, or LOGGER_SQL_URI."""

from __future__ import annotations

import hashlib
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
_CONNECTION = "the connection ledger_db"
_SAID_BEFORE = ("host", "port", "dbname", "database", "user", "password", "dsn")
# Airflow's own words beside libpq's, most of them PostgresHook's; the last three say whose token to take where iam asks
# for one, which is refused.
_WITHOUT_EFFECT = (
    "cursor", "enable_log_db_messages", "sqlalchemy_scheme", "sqlalchemy_query", "aws_conn_id", "cluster-identifier",
    "workgroup-name",
)  # fmt: skip
_OTHER_LOGINS = ("iam", "redshift", "redshift-serverless", "azure_conn_id")
_OFF = ("", "false", "0")
# How much of a name PostgreSQL keeps.
_NAME_LENGTH = 63
_DIGEST_LENGTH = 8
_CONNECT_SECONDS = 10
_ENDED, _NO_RIGHT = "57P01", "42501"
# A connection that is refused has no SQLSTATE: psycopg2 knows the sentence only.
_REFUSED = (
    "password authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist",
    "permission denied", "not permitted to log in",
)  # fmt: skip


@dataclass(frozen=True)
class LedgerConnection:
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
    def from_environment(cls, environment: Mapping[str, str]) -> LedgerConnection:
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
    def of_uri(cls, uri: str, variable: str) -> LedgerConnection:
        wrong = SettingError(
            f"{variable} cannot be used: give postgresql://user:password@host:5432/database, with such signs as / and "
            "@ in a password written as %2F and %40"
        )
        try:
            parts = urlsplit(uri)
            port = parts.port or cls.port
            given: dict[str, object] = dict(parse_qsl(parts.query))
            # Airflow writes a connection's extra so.
            given |= json.loads(str(given.pop("__extra__", "{}")))
        except (ValueError, TypeError):
            raise wrong from None
        database = unquote(parts.path.strip("/"))
        # Where a sign of the password ended the host, the rest of both stands behind it.
        if parts.scheme not in _SCHEMES or _holds_a_login(database) or "@" in parts.query + parts.fragment:
            raise wrong
        host, options = _told_besides(variable, unquote(parts.hostname or ""), given)
        if not host or not database:
            raise wrong
        user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
        return cls(host, database, port, user, password, options)

    @classmethod
    def of_json(cls, text: str) -> LedgerConnection:
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
    ) -> LedgerConnection:
        """As Airflow's connection has them; raises SettingError where there is no host or no database."""
        host, texts = _told_besides(_CONNECTION, host, options)
        if not host or not database:
            missing = "host" if not host else "database (its field schema)"
            raise SettingError(f"{_CONNECTION} names no {missing}")
        if _holds_a_login(database):
            raise SettingError(
                f"{_CONNECTION} names a database that holds / or @: in a connection that is written as an address, "
                "such signs in a password are written as %2F and %40"
            )
        return cls(host, database, int(port or cls.port), user or None, password or None, texts)

    def connect(self, name: str) -> Connection:
        """`name` is what PostgreSQL shows of it. Raises LedgerError; LedgerAccessError where a wrong login is."""
        import psycopg2

        # libpq's words, so that what the address does not say still comes from PGPASSWORD and the like.
        known = {"user": self.user, "password": self.password, "application_name": _short(name)}
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


def _told_besides(place: str, host: str | None, extra: Mapping[str, object]) -> tuple[str | None, dict[str, str]]:
    """The host, and libpq's options, of what is said in `place` beside its fields.

    Raises SettingError, which names what cannot be used, and never its value.
    """
    import psycopg2
    from psycopg2.extensions import make_dsn

    given = {name: value for name, value in extra.items() if value is not None and name not in _WITHOUT_EFFECT}
    if not host and isinstance(folder := given.get("host"), str):
        # A socket's folder has no other place in an address.
        host = folder
        del given["host"]
    options = {}
    for name, value in given.items():
        if name in _SAID_BEFORE:
            raise SettingError(
                f"{place} says {name} among its options: take it out there, and give host, port, database, login and "
                "password in their own places"
            )
        if name in _OTHER_LOGINS:
            if str(value).lower() in _OFF:
                continue
            raise SettingError(f"{place} asks for {name}: not supported, give a login and a password")
        try:
            # libpq alone knows which options it has.
            make_dsn(**{name: ""})
        except psycopg2.ProgrammingError:
            raise SettingError(f"{place} says {name!r}, an option that libpq does not know: take it out") from None
        if not isinstance(value, str | int | float):
            raise SettingError(f"{place} says {name}, but neither as a text nor as a number: give one of them")
        options[name] = str(value)
    return host, options


def _holds_a_login(database: str) -> bool:
    """What an address becomes whose password holds such a sign as it is: errors would show the rest of it."""
    return "/" in database or "@" in database


def _short(name: str) -> str:
    """What PostgreSQL keeps of it, still another one for each name: by it a recorder ends older ones of its topic."""
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: _NAME_LENGTH - _DIGEST_LENGTH - 1]} {digest}"


def _failure(address: LedgerConnection, what: str, error: Exception) -> LedgerError:
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
