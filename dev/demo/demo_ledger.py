"""What the demo shows of the ledger, and how it holds it against the output topic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from include.ledger.connection import LedgerConnection

# The DAG that fills it was woken by the batch, and needs its time.
RECORD_SECONDS = 60

_STANDING = """
SELECT count(*), count(*) FILTER (WHERE prediction AND NOT EXISTS (
    SELECT FROM ledger.confirmations WHERE confirmations.trans_num = predictions.trans_num
)) FROM ledger.predictions
"""
_BATCH = """
SELECT format('%%s/%%s/%%s/%%s', source_topic, source_partition, source_offset, source_row), payment::text
FROM ledger.predictions WHERE batch_id = %s
"""
_EXAMPLE = """
SELECT trans_num FROM ledger.predictions WHERE batch_id = %s AND trans_num IS NOT NULL ORDER BY prediction DESC LIMIT 1
"""


@dataclass(frozen=True)
class DemoLedger:
    """Raises LedgerError where it does not answer."""

    address: LedgerConnection

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DemoLedger:
        return cls(LedgerConnection.from_environment(environment))

    @property
    def standing(self) -> str:
        ((payments, frauds),) = self._ask(_STANDING)
        return f"ledger {payments:,} payments, {frauds:,} frauds to review"

    def batch(self, batch_id: str, count: int) -> list[tuple[str, str]]:
        """Source with row, and the payment as it is there; once there are so many, or the time is over."""
        until = time.monotonic() + RECORD_SECONDS
        while len(rows := self._ask(_BATCH, batch_id)) < count and time.monotonic() < until:
            time.sleep(0.5)
        return [(str(place), str(payment)) for place, payment in rows]

    def example(self, batch_id: str) -> str | None:
        """The trans_num of one of its payments, a fraud if there is one."""
        return next((str(name) for (name,) in self._ask(_EXAMPLE, batch_id)), None)

    def _ask(self, sql: str, *values: str) -> list[tuple[object, ...]]:
        with self.address.opened("fraud demo") as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall()
