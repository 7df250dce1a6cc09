"""The check of the ledger, with a fault that it must report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.check.check_result import CheckResult, run_checks
from include.check.ledger_check import check_ledger
from include.ledger.connection import LedgerConnection
from tests.support.ledger import query

TABLES = "ledger's tables"


def check(ledger: LedgerConnection) -> dict[str, CheckResult]:
    return {result.name: result for result in run_checks([("tried", lambda: check_ledger(ledger))])}


def test_ledger_passes_and_stays_unchanged(ledger: LedgerConnection) -> None:
    query(ledger, "INSERT INTO ledger.exports (file) VALUES ('kept')")
    before = query(ledger, "SELECT xmin, * FROM ledger.exports")
    assert check(ledger) == {
        "ledger_db": CheckResult("ledger_db", f"{ledger}, not encrypted, as ledger"),
        TABLES: CheckResult(TABLES, "version 0003, rights to read and to write"),
    }
    # The check changes nothing.
    assert query(ledger, "SELECT xmin, * FROM ledger.exports") == before
    assert query(ledger, "SELECT to_regclass('tried')") == [(None,)]


RIGHTS = {
    **dict.fromkeys(
        ("predictions", "recorded_offsets", "lost_offsets", "batches", "exports", "confirmations"),
        ("SELECT", "INSERT", "UPDATE"),
    ),
    **dict.fromkeys(("replaced_predictions", "confirmation_changes"), ("SELECT", "INSERT")),
    "batch_partitions": ("SELECT", "INSERT", "DELETE"),
}


def test_each_missing_right_is_named(ledger: LedgerConnection) -> None:
    for table, rights in RIGHTS.items():
        for right in rights:
            query(ledger, f"REVOKE {right} ON ledger.{table} FROM ledger")
            found = check(ledger)[TABLES]
            assert not found.ok
            missing = found.text.removeprefix("the user ledger lacks ").removesuffix(
                ": docs/security.md has the GRANTs"
            )
            # PostgreSQL checks a view's tables with the rights of its owner, who is the same user here.
            views = {"SELECT on all_predictions", "SELECT on published_predictions"}
            assert set(missing.split(", ")) <= {f"{right} on {table}", *views}
            assert right == "SELECT" or missing == f"{right} on {table}"
            query(ledger, f"GRANT {right} ON ledger.{table} TO ledger")
    assert check(ledger)[TABLES].ok


def test_missing_right_to_temporary_tables_is_named(ledger: LedgerConnection) -> None:
    query(ledger, f"REVOKE TEMPORARY ON DATABASE {ledger.database} FROM ledger, PUBLIC")
    assert "lacks TEMPORARY on the database" in check(ledger)[TABLES].text


def test_missing_right_to_the_schema_is_reported(ledger: LedgerConnection) -> None:
    query(ledger, "REVOKE USAGE ON SCHEMA ledger FROM ledger")
    found = check(ledger)["tried"]
    assert not found.ok
    assert "permission denied for schema ledger: the user of ledger_db lacks the right to it" in found.text


def test_read_only_database_is_reported(ledger: LedgerConnection) -> None:
    query(ledger, f"ALTER DATABASE {ledger.database} SET default_transaction_read_only = on")
    found = check(ledger)["tried"]
    assert not found.ok
    assert "read-only transaction" in found.text


def test_tables_of_another_version_are_reported(ledger: LedgerConnection) -> None:
    query(ledger, "UPDATE ledger.alembic_version SET version_num = '9999'")
    found = check(ledger)
    assert found["ledger_db"].ok
    assert "upgrade this installation" in found[TABLES].text


def test_missing_tables_are_reported(ledger: LedgerConnection) -> None:
    query(ledger, "DROP SCHEMA ledger CASCADE")
    found = check(ledger)[TABLES]
    assert not found.ok
    assert "run `fraud ledger migrate`" in found.text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "wr0ng"}, "password authentication failed"),
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"database": "no_such_database"}, 'database "no_such_database" does not exist'),
    ],
)
def test_rejected_login_is_reported_and_the_password_not_shown(
    ledger: LedgerConnection, change: dict[str, str], expected: str
) -> None:
    found = check(replace(ledger, **change))["tried"]  # type: ignore[arg-type]
    assert not found.ok
    assert expected in found.text
    assert "check login, password and database in the connection ledger_db" in found.text
    assert "wr0ng" not in found.text


def test_unreachable_server_is_reported(ledger: LedgerConnection, unused_address: str) -> None:
    host, _, port = unused_address.partition(":")
    found = check(replace(ledger, host=host, port=int(port)))["tried"]
    assert not found.ok
    assert f"the ledger's database at {unused_address}/{ledger.database} does not answer: " in found.text
