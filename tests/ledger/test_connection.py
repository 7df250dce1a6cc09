"""What a connection's address may say, and what is refused before anybody is asked to connect."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote

import pytest

from include.errors import SettingError
from include.ledger.connection import PLAIN_VARIABLE, VARIABLE, LedgerConnection

SERVER = "postgresql://fraud:s3cret@db:6543/ledger"


def of_uri(uri: str) -> LedgerConnection:
    return LedgerConnection.from_environment({PLAIN_VARIABLE: uri})


def of_json(extra: object, **changed: object) -> LedgerConnection:
    given = {"conn_type": "postgres", "host": "db", "port": 6543, "schema": "ledger", "login": "fraud"}
    return LedgerConnection.from_environment(
        {VARIABLE: json.dumps({**given, "password": "s3cret", "extra": extra} | changed)}
    )


def of_airflows_uri(extra: object) -> LedgerConnection:
    """As Airflow writes a connection whose extra is no plain list of texts."""
    return of_uri(f"{SERVER}?__extra__={quote(json.dumps(extra))}")


Way = Callable[[object], LedgerConnection]
WAYS = pytest.mark.parametrize("way", [of_json, of_airflows_uri])


@WAYS
def test_its_extra_is_libpqs(way: Way):
    options = {"sslmode": "verify-full", "keepalives_idle": "20"}
    given = {**options, "keepalives_idle": 20, "sslrootcert": None}
    assert way(given) == LedgerConnection("db", "ledger", 6543, "fraud", "s3cret", options)


def test_airflows_extra_and_plain_options_go_together():
    given = quote('{"sslmode": "require"}')
    assert of_uri(f"{SERVER}?connect_timeout=3&__extra__={given}").options == {
        "connect_timeout": "3",
        "sslmode": "require",
    }


@pytest.mark.parametrize("extra", ["{", "null", '"sslmode"', "[1]", "7"])
def test_an_extra_that_cannot_be_read_is_no_address(extra: str):
    with pytest.raises(SettingError, match="LOGGER_SQL_URI cannot be used: give postgresql://"):
        of_uri(f"{SERVER}?__extra__={quote(extra)}")


@WAYS
@pytest.mark.parametrize("name", ["host", "port", "dbname", "database", "user", "password", "dsn"])
def test_what_has_a_place_of_its_own_is_no_option(way: Way, name: str):
    with pytest.raises(SettingError, match=rf"(ledger_db|LOGGER_SQL_URI) says {name} among its options: ") as told:
        way({name: "v4lue"})
    assert "v4lue" not in str(told.value)


def test_a_sockets_folder_is_an_option_where_there_is_no_host():
    found = LedgerConnection("/run/postgresql", "ledger", 5432, "fraud")
    assert of_uri("postgresql://fraud@/ledger?host=/run/postgresql") == found
    without = {"host": "", "port": None, "password": None}
    assert of_json({"host": "/run/postgresql"}, **without) == found
    with pytest.raises(SettingError, match="ledger_db names no host"):
        of_json({}, **without)


AIRFLOWS_OWN = {
    "cursor": "dictcursor", "enable_log_db_messages": True, "sqlalchemy_scheme": "postgresql+psycopg",
    "sqlalchemy_query": {"a": "b"}, "iam": False, "redshift": "false", "aws_conn_id": "aws_default",
}  # fmt: skip


@WAYS
def test_airflows_own_options_are_left_out_where_they_change_nothing(way: Way):
    assert way({**AIRFLOWS_OWN, "sslmode": "require"}).options == {"sslmode": "require"}


@WAYS
@pytest.mark.parametrize("name", ["iam", "redshift", "redshift-serverless", "azure_conn_id"])
def test_another_login_than_by_password_is_refused(way: Way, name: str):
    words = f"asks for {name}: not supported, give a login and a password"
    with pytest.raises(SettingError, match=rf"^(the connection ledger_db|LOGGER_SQL_URI) {words}$"):
        way({name: True})


@WAYS
@pytest.mark.parametrize("name", ["sslmod", "cursor_factory", "async", "x=1 sslmode", ""])
def test_an_option_that_libpq_does_not_know_is_named(way: Way, name: str):
    with pytest.raises(SettingError, match=f"says '{name}', an option that libpq does not know: take it out") as told:
        way({name: "v4lue"})
    assert "v4lue" not in str(told.value)


@WAYS
def test_an_option_is_a_text_or_a_number(way: Way):
    with pytest.raises(SettingError, match="says sslmode, but neither as a text nor as a number"):
        way({"sslmode": ["verify-full"]})


@pytest.mark.parametrize(
    "rest", ["1234/s3cret@db/ledger", "1234/s3@db", "1234/@db/ledger", "12/s3?cret@db/ledger", "12/s3#cret@db/ledger"]
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(rest: str):
    with pytest.raises(SettingError, match=r"such signs as / and @ in a password written as %2F and %40$") as told:
        of_uri(f"postgresql://fraud:{rest}")
    assert "s3" not in str(told.value)
    assert "12" not in str(told.value)


def test_a_password_that_is_encoded_is_taken():
    assert of_uri("postgresql://fraud:p%2Fs%40%3F%23@db/ledger") == LedgerConnection(
        "db", "ledger", 5432, "fraud", "p/s@?#"
    )


def test_sessions_have_names_of_their_own_however_long(ledger: LedgerConnection):
    def shown(name: str) -> str:
        with closing(ledger.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW application_name")
            return str(cursor.fetchone()[0])

    start = "fraud record " + "a" * 50
    assert shown(start) == start
    first, second = shown(f"{start}_one"), shown(f"{start}_two")
    assert first != second
    assert len(first) == len(second) == 63
    assert first.startswith(start[:50])
    assert shown(f"{start}_one") == first
