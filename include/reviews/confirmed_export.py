"""Exports confirmed payments to files of training data.

PostgreSQL decides which verdicts a file holds before the file is stored. If an export is killed, the next one stores
its file again under the same name. A verdict that changes is exported again in a later file, together with the verdicts
on all other payments of its trans_num: for each trans_num the newest file counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from include.ledger.connection import LedgerConnection
from include.ledger.schema import open_ledger
from include.reviews.confirmed_file import ConfirmedFile, ConfirmedPayment
from include.reviews.payment_source import SOURCE_COLUMNS
from include.reviews.verdict_writer import LOCK

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

# Trans_nums in one file. It has more rows if several payments share a trans_num.
MAX_TRANS_NUMS = 200_000
_FETCHED_ROWS = 10_000

_UNFINISHED = "SELECT export_id, file FROM ledger.exports WHERE finished_at IS NULL ORDER BY export_id LIMIT 1"
# A verdict without a source is not exported, because its payment is unknown.
_SOURCE = ", ".join(SOURCE_COLUMNS)
_PREDICTIONS = f"""
FROM ledger.published_predictions AS found
WHERE ({", ".join(f"found.{name}" for name in ("trans_num", *SOURCE_COLUMNS))})
    = ({", ".join(f"due.{name}" for name in ("trans_num", *SOURCE_COLUMNS))})
"""
_DUE = f"FROM ledger.confirmations AS due WHERE export_id IS NULL AND EXISTS (SELECT {_PREDICTIONS})"
# The names sort by time even if the clock is set back.
_BEGIN = """
INSERT INTO ledger.exports (file, started_at)
SELECT 'confirmed-' || to_char(at, 'YYYYMMDD"T"HH24MISSUS"Z"') || '.parquet', at
FROM (SELECT greatest(clock_timestamp(), max(started_at) + interval '1 microsecond') AS at FROM ledger.exports) AS now
RETURNING export_id, file
"""
# With all other verdicts on the same trans_num, because for each trans_num only the newest file counts.
_ASSIGN = f"""
UPDATE ledger.confirmations AS due SET export_id = %s
WHERE trans_num IN (SELECT DISTINCT trans_num {_DUE} ORDER BY trans_num LIMIT %s) AND EXISTS (SELECT {_PREDICTIONS})
"""  # noqa: S608
# The newest prediction counts, as in the view ledger.payments.
_PAYMENTS = f"""
SELECT trans_num, fraud, newest.payment::text FROM ledger.confirmations AS due CROSS JOIN LATERAL (
    SELECT payment {_PREDICTIONS}
    ORDER BY scored_at DESC, coalesce(replaced_at, 'infinity') DESC LIMIT 1
) AS newest
WHERE export_id = %s ORDER BY trans_num, {_SOURCE}
"""  # noqa: S608
_FINISH = """
UPDATE ledger.exports SET (payments, finished_at) = ROW (%s, now()) WHERE export_id = %s AND finished_at IS NULL
"""


class ExportStore(Protocol):
    """Where export files are stored."""

    def put(self, key: str, data: bytes) -> None:
        """Store a file, wholly or not at all, in place of an earlier one."""


@dataclass(frozen=True)
class ExportedFile:
    """A finished export.

    `payments` is 0, and there is no file, if an interrupted export was finished after all its verdicts had changed.
    """

    file: str
    payments: int


def export(address: LedgerConnection, store: ExportStore) -> list[ExportedFile]:
    """Store all verdicts that are not exported yet, and return the files. A killed export can be repeated."""
    files = []
    with open_ledger(address, "fraud export-confirmed") as connection:
        while export_to_finish := _begin(connection):
            files.append(_finish(connection, store, *export_to_finish))
    return files


def _begin(connection: Connection) -> tuple[int, str] | None:
    """Return the id and file name of an interrupted export, or of a new one; None if there is nothing to export."""
    with connection, connection.cursor() as cursor:
        cursor.execute(LOCK)
        cursor.execute(_UNFINISHED)
        if unfinished := cursor.fetchone():
            return unfinished[0], unfinished[1]
        cursor.execute(f"SELECT {_DUE} LIMIT 1")
        if cursor.fetchone() is None:
            return None
        cursor.execute(_BEGIN)
        export_id, file = cursor.fetchone() or (0, "")
        cursor.execute(_ASSIGN, (export_id, MAX_TRANS_NUMS))
        return export_id, file


def _finish(connection: Connection, store: ExportStore, export_id: int, name: str) -> ExportedFile:
    file = ConfirmedFile()
    with connection, connection.cursor("confirmed") as cursor:
        cursor.execute(_PAYMENTS, (export_id,))
        while rows := cursor.fetchmany(_FETCHED_ROWS):
            file.add([ConfirmedPayment(*row) for row in rows])
    if file.payments:
        store.put(name, file.bytes())
    with connection, connection.cursor() as cursor:
        cursor.execute(_FINISH, (file.payments, export_id))
    return ExportedFile(name, file.payments)
