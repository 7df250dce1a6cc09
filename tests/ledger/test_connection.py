"""Reading a LedgerConnection from a URI and from JSON, and what is refused before any attempt to connect."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote

import pytest

from include.errors import SettingError
from include.ledger.connection import CONNECTION_VARIABLE, URI_VARIABLE, LedgerConnection

SERVER = "postgresql://fraud:s3cret@db:6543/ledger"


def from_uri(uri: str) -> LedgerConnection:
    return LedgerConnection.from_environment({URI_VARIABLE: uri})


def from_json(extra: object, **changed: object) -> LedgerConnection:
    fields = {"conn_type": "postgres", "host": "db", "port": 6543, "schema": "ledger", "login": "fraud"}
    return LedgerConnection.from_environment(
        {CONNECTION_VARIABLE: json.dumps({**fields, "password": "s3cret", "extra": extra} | changed)}
    )


def from_airflow_uri(extra: object) -> LedgerConnection:
    """Return the connection of a URI as Airflow writes it if the extra has values that are not texts."""
    return from_uri(f"{SERVER}?__extra__={quote(json.dumps(extra))}")


Reader = Callable[[object], LedgerConnection]
BOTH_FORMS = pytest.mark.parametrize("read_extra", [from_json, from_airflow_uri])


@BOTH_FORMS
def test_extra_becomes_libpq_options(read_extra: Reader):
    options = {"sslmode": "verify-full", "keepalives_idle": "20"}
    extra = {**options, "keepalives_idle": 20, "sslrootcert": None}
    assert read_extra(extra) == LedgerConnection("db", "ledger", 6543, "fraud", "s3cret", options)


def test_uri_options_and_extra_are_merged():
    extra = quote('{"sslmode": "require"}')
    assert from_uri(f"{SERVER}?connect_timeout=3&__extra__={extra}").options == {
        "connect_timeout": "3",
        "sslmode": "require",
    }


@pytest.mark.parametrize("extra", ["{", "null", '"sslmode"', "[1]", "7"])
def test_uri_with_unreadable_extra_is_refused(extra: str):
    with pytest.raises(SettingError, match="LOGGER_SQL_URI cannot be used: give postgresql://"):
        from_uri(f"{SERVER}?__extra__={quote(extra)}")


@BOTH_FORMS
@pytest.mark.parametrize("name", ["host", "port", "dbname", "database", "user", "password", "dsn"])
def test_option_that_has_its_own_field_is_refused(read_extra: Reader, name: str):
    with pytest.raises(SettingError, match=rf"(ledger_db|LOGGER_SQL_URI) has {name} among its options: ") as caught:
        read_extra({name: "v4lue"})
    assert "v4lue" not in str(caught.value)


def test_option_host_names_the_socket_folder_if_there_is_no_host():
    expected = LedgerConnection("/run/postgresql", "ledger", 5432, "fraud")
    assert from_uri("postgresql://fraud@/ledger?host=/run/postgresql") == expected
    no_host = {"host": "", "port": None, "password": None}
    assert from_json({"host": "/run/postgresql"}, **no_host) == expected
    with pytest.raises(SettingError, match="ledger_db names no host"):
        from_json({}, **no_host)


AIRFLOW_OPTIONS = {
    "cursor": "dictcursor", "enable_log_db_messages": True, "sqlalchemy_scheme": "postgresql+psycopg",
    "sqlalchemy_query": {"a": "b"}, "iam": False, "redshift": "false", "aws_conn_id": "aws_default",
}  # fmt: skip


@BOTH_FORMS
def test_airflow_options_without_effect_are_ignored(read_extra: Reader):
    assert read_extra({**AIRFLOW_OPTIONS, "sslmode": "require"}).options == {"sslmode": "require"}


@BOTH_FORMS
@pytest.mark.parametrize("name", ["iam", "redshift", "redshift-serverless", "azure_conn_id"])
def test_logins_without_password_are_refused(read_extra: Reader, name: str):
    message = f"has the option {name}, which is not supported: give a login and a password"
    with pytest.raises(SettingError, match=rf"^(the connection ledger_db|LOGGER_SQL_URI) {message}$"):
        read_extra({name: True})


@BOTH_FORMS
@pytest.mark.parametrize("name", ["sslmod", "cursor_factory", "async", "x=1 sslmode", ""])
def test_option_unknown_to_libpq_is_refused_by_name(read_extra: Reader, name: str):
    with pytest.raises(SettingError, match=f"has the option '{name}', which libpq does not know: remove it") as caught:
        read_extra({name: "v4lue"})
    assert "v4lue" not in str(caught.value)


@BOTH_FORMS
def test_option_must_be_a_text_or_a_number(read_extra: Reader):
    with pytest.raises(SettingError, match="has the option sslmode, which is neither a text nor a number"):
        read_extra({"sslmode": ["verify-full"]})


@pytest.mark.parametrize(
    "rest",
    ["1234/s3cret@db/ledger", "1234/s3@db/ledger", "1234/@db/ledger", "12/s3?cret@db/ledger", "12/s3#cret@db/ledger"],
)
def test_password_that_is_not_encoded_is_refused_and_not_shown(rest: str):
    with pytest.raises(SettingError, match=r"characters of a password encoded: / as %2F, @ as %40$") as caught:
        from_uri(f"postgresql://fraud:{rest}")
    assert "s3" not in str(caught.value)
    assert "12" not in str(caught.value)


def test_encoded_password_is_decoded():
    assert from_uri("postgresql://fraud:p%2Fs%40%3F%23@db/ledger") == LedgerConnection(
        "db", "ledger", 5432, "fraud", "p/s@?#"
    )


def test_long_session_names_are_shortened_and_stay_unique(ledger: LedgerConnection):
    def application_name(name: str) -> str:
        with closing(ledger.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW application_name")
            return str(cursor.fetchone()[0])

    start = "fraud record " + "a" * 50
    assert application_name(start) == start
    first, second = application_name(f"{start}_one"), application_name(f"{start}_two")
    assert first != second
    assert len(first) == len(second) == 63
    assert first.startswith(start[:50])
    assert application_name(f"{start}_one") == first
