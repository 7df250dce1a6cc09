"""Read from the ledger what the demo shows and compares."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from include.ledger.connection import LedgerConnection

# Seconds that the DAG record_predictions may take after the batch has triggered it.
RECORD_SECONDS = 60

_COUNTS_SQL = """
SELECT count(*), count(*) FILTER (WHERE prediction AND NOT EXISTS (
    SELECT FROM ledger.confirmations WHERE confirmations.trans_num = predictions.trans_num
)) FROM ledger.predictions
"""
_BATCH_SQL = """
SELECT format('%%s/%%s/%%s/%%s', source_topic, source_partition, source_offset, source_row), payment::text
FROM ledger.predictions WHERE batch_id = %s
"""
_EXAMPLE_SQL = """
SELECT trans_num FROM ledger.predictions WHERE batch_id = %s AND trans_num IS NOT NULL ORDER BY prediction DESC LIMIT 1
"""


@dataclass(frozen=True)
class DemoLedger:
    """Query the ledger. Methods raise LedgerError if it does not answer."""

    address: LedgerConnection

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DemoLedger:
        """Return the ledger of an environment."""
        return cls(LedgerConnection.from_environment(environment))

    @property
    def totals(self) -> str:
        """Return how many payments are recorded and how many predicted frauds are not reviewed."""
        ((payments, frauds),) = self._ask(_COUNTS_SQL)
        return f"ledger {payments:,} payments, {frauds:,} frauds to review"

    def batch(self, batch_id: str, count: int) -> list[tuple[str, str]]:
        """Return source with row and JSON of each payment of a batch, once there are `count` or after 60 s."""
        until = time.monotonic() + RECORD_SECONDS
        while len(rows := self._ask(_BATCH_SQL, batch_id)) < count and time.monotonic() < until:
            time.sleep(0.5)
        return [(str(place), str(payment)) for place, payment in rows]

    def example(self, batch_id: str) -> str | None:
        """Return the trans_num of a payment of this batch, of a fraud if there is one, or None."""
        return next((str(name) for (name,) in self._ask(_EXAMPLE_SQL, batch_id)), None)

    def _ask(self, sql: str, *values: str) -> list[tuple[object, ...]]:
        with self.address.open("fraud demo") as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall()
