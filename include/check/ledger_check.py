"""Check the ledger: its database, the version of its tables, and the rights that tasks and commands need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from include.check.check_result import CheckResult
from include.errors import LedgerSchemaError
from include.ledger.connection import LedgerConnection
from include.ledger.schema import VERSION, require_version

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_TABLES = "ledger's tables"
# For each table one of its columns, and the operations that need a right: docs/security.md grants the same.
_OPERATIONS = {
    "predictions": ("trans_num", "SELECT INSERT UPDATE"),
    "replaced_predictions": ("trans_num", "INSERT"),
    "all_predictions": ("trans_num", "SELECT"),
    "published_predictions": ("trans_num", "SELECT"),
    "lost_offsets": ("topic_id", "SELECT INSERT UPDATE"),
    "recorded_offsets": ("topic_id", "SELECT INSERT UPDATE"),
    "batches": ("reason", "SELECT INSERT UPDATE"),
    "batch_partitions": ("message_id", "SELECT INSERT DELETE"),
    "exports": ("payments", "SELECT INSERT UPDATE"),
    "confirmations": ("origin", "SELECT INSERT UPDATE"),
    "confirmation_changes": ("origin", "SELECT INSERT"),
}
# These affect no row: PostgreSQL checks the right, and whether the database is read-only, before it looks for rows.
_STATEMENTS = {
    "SELECT": "SELECT {column} FROM ledger.{table} LIMIT 0",
    "INSERT": "INSERT INTO ledger.{table} ({column}) SELECT NULL WHERE false",
    "UPDATE": "UPDATE ledger.{table} SET {column} = NULL WHERE false",
    "DELETE": "DELETE FROM ledger.{table} WHERE false",
}
# A migration, or a transaction in somebody's psql, may have locked a table.
_LOCK_TIMEOUT = "5s"


def check_ledger(ledger: LedgerConnection) -> Iterator[CheckResult]:
    """Yield a result for the connection and one for the tables. It changes nothing in the database.

    Raise LedgerError if the database cannot be used.
    """
    with ledger.open("fraud check") as connection:
        user, encrypted = connection.info.user, connection.info.ssl_in_use
        yield CheckResult("ledger_db", f"{ledger}, {'TLS' if encrypted else 'not encrypted'}, as {user}")
        try:
            require_version(connection)
        except LedgerSchemaError as error:
            yield CheckResult(_TABLES, str(error), ok=False)
            return
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            missing = list(_missing_rights(cursor))
        connection.rollback()
    if missing:
        text = f"the user {user} lacks {', '.join(missing)}: docs/security.md has the GRANTs"
        yield CheckResult(_TABLES, text, ok=False)
        return
    yield CheckResult(_TABLES, f"version {VERSION}, rights to read and to write")


def _missing_rights(cursor: Cursor) -> Iterator[str]:
    for table, (column, operations) in _OPERATIONS.items():
        for operation in operations.split():
            if not _is_allowed(cursor, _STATEMENTS[operation].format(table=table, column=column)):
                yield f"{operation} on {table}"
    if not _is_allowed(cursor, "CREATE TEMPORARY TABLE tried ()"):
        yield "TEMPORARY on the database"


def _is_allowed(cursor: Cursor, statement: str) -> bool:
    from psycopg2.errors import InsufficientPrivilege

    cursor.execute("SAVEPOINT before")
    try:
        cursor.execute(statement)
    except InsufficientPrivilege:
        cursor.execute("ROLLBACK TO before")
        return False
    return True
