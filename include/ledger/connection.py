"""Connect to the ledger's PostgreSQL database, which Airflow's connection `ledger_db` or LOGGER_SQL_URI names."""

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

CONNECTION_VARIABLE = "AIRFLOW_CONN_LEDGER_DB"
URI_VARIABLE = "LOGGER_SQL_URI"
_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg")
_CONNECTION = "the connection ledger_db"
# Options of libpq for which a connection has fields of its own.
_FIELDS = ("host", "port", "dbname", "database", "user", "password", "dsn")
# Options of Airflow, most of them PostgresHook's, that change nothing here. The last three only matter together with
# `iam`, which is refused.
_IGNORED_OPTIONS = (
    "cursor", "enable_log_db_messages", "sqlalchemy_scheme", "sqlalchemy_query", "aws_conn_id", "cluster-identifier",
    "workgroup-name",
)  # fmt: skip
_UNSUPPORTED_LOGINS = ("iam", "redshift", "redshift-serverless", "azure_conn_id")
_FALSE_TEXTS = ("", "false", "0")
# PostgreSQL truncates application_name to this many bytes.
_MAX_NAME_LENGTH = 63
_DIGEST_LENGTH = 8
_CONNECT_SECONDS = 10
# An error of a refused connection has no SQLSTATE in psycopg2, only its text.
_REFUSED_LOGINS = (
    "password authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist",
    "permission denied", "not permitted to log in",
)  # fmt: skip


@dataclass(frozen=True)
class LedgerConnection:
    """Name a PostgreSQL database and the login to it. `options` are those of libpq, such as sslmode."""

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
        """Return the connection that the environment names. Raise SettingError if it names none or is invalid.

        The error never quotes the URI, because it may hold a password.
        """
        if connection := environment.get(CONNECTION_VARIABLE, "").strip():
            if connection.startswith("{"):
                return cls.from_json(connection)
            return cls.from_uri(connection, CONNECTION_VARIABLE)
        if uri := environment.get(URI_VARIABLE, "").strip():
            return cls.from_uri(uri, URI_VARIABLE)
        raise SettingError(
            f"the ledger's database is unknown: set {CONNECTION_VARIABLE} or {URI_VARIABLE}, for instance to "
            "postgresql://user:password@host:5432/ledger"
        )

    @classmethod
    def from_uri(cls, uri: str, variable: str) -> LedgerConnection:
        """Return the connection of a URI. Raise SettingError, which names `variable`, if it is invalid."""
        invalid = SettingError(
            f"{variable} cannot be used: give postgresql://user:password@host:5432/database, and write special "
            "characters of a password encoded: / as %2F, @ as %40"
        )
        try:
            parts = urlsplit(uri)
            port = parts.port or cls.port
            query: dict[str, object] = dict(parse_qsl(parts.query))
            # Airflow stores a connection's extra under this name.
            query |= json.loads(str(query.pop("__extra__", "{}")))
        except (ValueError, TypeError):
            raise invalid from None
        database = unquote(parts.path.strip("/"))
        # If a character of the password ended the host early, these parts hold the rest of the password.
        if parts.scheme not in _SCHEMES or _contains_password(database) or "@" in parts.query + parts.fragment:
            raise invalid
        host, options = _split_host(variable, unquote(parts.hostname or ""), query)
        if not host or not database:
            raise invalid
        user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
        return cls(host, database, port, user, password, options)

    @classmethod
    def from_json(cls, text: str) -> LedgerConnection:
        """Return the connection that Airflow's JSON form describes. Raise SettingError if it is invalid."""
        try:
            fields = json.loads(text)
            extra = fields.get("extra") or {}
            options = json.loads(extra) if isinstance(extra, str) else extra
            return cls.from_fields(
                fields.get("host"), fields.get("schema"), fields.get("port"), fields.get("login"),
                fields.get("password"), options,
            )  # fmt: skip
        except (ValueError, TypeError, AttributeError):
            raise SettingError(
                f'{CONNECTION_VARIABLE} cannot be read: give {{"conn_type": "postgres", "host": …, "login": …, '
                '"password": …, "schema": "ledger"}'
            ) from None

    @classmethod
    def from_fields(
        cls,
        host: str | None,
        database: str | None,
        port: int | str | None,
        user: str | None,
        password: str | None,
        options: Mapping[str, object],
    ) -> LedgerConnection:
        """Return the connection that the fields of an Airflow connection describe; `options` are its extra.

        Raise SettingError if the host or the database is missing, or an option is invalid.
        """
        host, texts = _split_host(_CONNECTION, host, options)
        if not host or not database:
            missing = "host" if not host else "database (its field schema)"
            raise SettingError(f"{_CONNECTION} names no {missing}")
        if _contains_password(database):
            raise SettingError(
                f"{_CONNECTION} names a database that contains / or @, as if a part of a password: in a connection "
                "that is written as a URI, write / in a password as %2F and @ as %40"
            )
        return cls(host, database, int(port or cls.port), user or None, password or None, texts)

    def connect(self, name: str) -> Connection:
        """Return a new session in UTC, which PostgreSQL shows as `name`.

        Raise LedgerError if the database does not answer, LedgerAccessError if it refuses the login.
        """
        import psycopg2

        # As libpq's options, so that libpq still takes what is not given from PGPASSWORD and the like.
        login = {"user": self.user, "password": self.password, "application_name": _session_name(name)}
        parameters: dict[str, Any] = {
            # If the server dies or the network fails, a run must not wait until the kernel gives up.
            "connect_timeout": str(_CONNECT_SECONDS), "keepalives_idle": "30", "keepalives_interval": "10",
            "tcp_user_timeout": "60000",
            **self.options, **{name: value for name, value in login.items() if value},
        }  # fmt: skip
        try:
            connection: Connection = psycopg2.connect(
                host=self.host, port=self.port, dbname=self.database, **parameters
            )
            with connection, connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
        except psycopg2.Error as error:
            raise self._ledger_error("does not answer", error) from None
        return connection

    @contextmanager
    def open(self, name: str) -> Iterator[Connection]:
        """Yield a session as `connect` returns it, and close it.

        Raise LedgerError, of one line, in place of any error of psycopg2 while the session is used.
        """
        import psycopg2

        connection = self.connect(name)
        try:
            yield connection
        except psycopg2.Error as error:
            # Without its cause: PostgreSQL's error about a COPY quotes the row.
            raise self._ledger_error("failed", error) from None
        finally:
            connection.close()

    def _ledger_error(self, failure: str, error: Exception) -> LedgerError:
        """Return an error with PostgreSQL's primary message only: its further lines may quote rows."""
        import psycopg2
        from psycopg2.errorcodes import ADMIN_SHUTDOWN, INSUFFICIENT_PRIVILEGE

        cause = error.__context__
        if isinstance(error, psycopg2.InterfaceError) and isinstance(cause, psycopg2.Error):
            # After the connection broke the rollback failed as well; the first error is the one to show.
            return self._ledger_error(failure, cause)
        diag = getattr(error, "diag", None)
        text = getattr(diag, "message_primary", None) or str(error).strip().partition("\n")[0]
        line = f"the ledger's database at {self} {failure}: {text or type(error).__name__}"
        code = getattr(error, "pgcode", None)
        if code == ADMIN_SHUTDOWN or "closed the connection" in text:
            line += " (the server was stopped, or a newer attempt has taken over)"
        if code == INSUFFICIENT_PRIVILEGE:
            return LedgerAccessError(f"{line}: the user of ledger_db lacks the right to it")
        if code is None and any(words in str(error) for words in _REFUSED_LOGINS):
            return LedgerAccessError(f"{line}: check login, password and database in the connection ledger_db")
        return LedgerError(line)


def _split_host(source: str, host: str | None, extra: Mapping[str, object]) -> tuple[str | None, dict[str, str]]:
    """Return the host, which may be an option of `extra`, and the other options for libpq.

    Raise SettingError, which names `source` and the invalid option, but never its value.
    """
    import psycopg2
    from psycopg2.extensions import make_dsn

    given = {name: value for name, value in extra.items() if value is not None and name not in _IGNORED_OPTIONS}
    if not host and isinstance(folder := given.get("host"), str):
        # A URI can name the folder of a Unix socket in this option only.
        host = folder
        del given["host"]
    options = {}
    for name, value in given.items():
        if name in _FIELDS:
            raise SettingError(
                f"{source} has {name} among its options: remove it there, and give host, port, database, login and "
                "password in their own fields"
            )
        if name in _UNSUPPORTED_LOGINS:
            if str(value).lower() in _FALSE_TEXTS:
                continue
            raise SettingError(f"{source} has the option {name}, which is not supported: give a login and a password")
        try:
            # Only libpq knows its options.
            make_dsn(**{name: ""})
        except psycopg2.ProgrammingError:
            raise SettingError(f"{source} has the option {name!r}, which libpq does not know: remove it") from None
        if not isinstance(value, str | int | float):
            raise SettingError(
                f"{source} has the option {name}, which is neither a text nor a number: give one of them"
            )
        options[name] = str(value)
    return host, options


def _contains_password(database: str) -> bool:
    """Return whether a database name looks like the rest of a password with / or @ in it, which no error may show."""
    return "/" in database or "@" in database


def _session_name(name: str) -> str:
    """Return `name`, cut to what PostgreSQL keeps and still unique: a recorder ends older sessions of its own name."""
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: _MAX_NAME_LENGTH - _DIGEST_LENGTH - 1]} {digest}"
