"""Finds the payment that a verdict refers to: by trans_num, or by trans_num and source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.reviews.payment_source import CONTENT_COLUMNS, SOURCE_COLUMNS, PaymentSource

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_SOURCE = ", ".join(SOURCE_COLUMNS)
_CONTENT = ", ".join(CONTENT_COLUMNS)
# Among predictions of the same time, the current one comes before the one that it replaced.
_NEWEST = "scored_at DESC, coalesce(replaced_at, 'infinity') DESC"
_KNOWN = """
SELECT name FROM unnest(%s::text[]) AS name
WHERE EXISTS (SELECT FROM ledger.published_predictions WHERE published_predictions.trans_num = name)
"""
# At one source the newest content counts; a payment with several sources gets its newest source.
_BY_TRANS_NUM = f"""
SELECT found.* FROM unnest(%s::text[]) AS name CROSS JOIN LATERAL (
    SELECT DISTINCT ON ({_CONTENT}) name AS given, trans_num, {_SOURCE}, {_CONTENT} FROM (
        SELECT DISTINCT ON ({_SOURCE}) * FROM ledger.published_predictions
        WHERE published_predictions.trans_num = name ORDER BY {_SOURCE}, {_NEWEST}
    ) AS placed
    ORDER BY {_CONTENT}, scored_at DESC, {", ".join(f"{column} DESC" for column in SOURCE_COLUMNS)} LIMIT %s
) AS found
"""  # noqa: S608
_BY_SOURCE = f"""
SELECT DISTINCT ON (number, {_SOURCE}) number, trans_num, {_SOURCE}, {_CONTENT}
FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[])
    WITH ORDINALITY AS given (name, topic, partition, "offset", row, number)
JOIN ledger.published_predictions AS found
    ON (source_topic, source_partition, source_offset) = (topic, partition, "offset")
    AND trans_num = name AND (row IS NULL OR source_row = row)
ORDER BY number, {_SOURCE}, {_NEWEST}
"""  # noqa: S608
_CONFIRMED = f"""
SELECT trans_num, {_SOURCE}, {_CONTENT}, fraud
FROM ledger.confirmations JOIN ledger.published_predictions USING (trans_num, {_SOURCE})
WHERE trans_num = ANY (%s)
"""  # noqa: S608
_FIRST_OF_CONTENT = 1 + len(SOURCE_COLUMNS)


@dataclass(frozen=True)
class KnownPayment:
    """A payment in the ledger. Its `source.row` is set. `content` stays the same when it is sent or scored again."""

    trans_num: str
    source: PaymentSource
    content: tuple[Any, ...]

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> KnownPayment:
        """Return the payment in a row of trans_num, SOURCE_COLUMNS and CONTENT_COLUMNS."""
        return cls(row[0], PaymentSource(*row[1:_FIRST_OF_CONTENT]), row[_FIRST_OF_CONTENT:])

    @property
    def key(self) -> tuple[Any, ...]:
        """Return the values that identify the payment, without its source."""
        # As text, because NaN is not equal to itself.
        return self.trans_num, *map(str, self.content)


def known_trans_nums(cursor: Cursor, trans_nums: Iterable[str]) -> set[str]:
    """Return the trans_nums that a payment in the ledger has."""
    cursor.execute(_KNOWN, (list(dict.fromkeys(trans_nums)),))
    return {name for (name,) in cursor.fetchall()}


def payments_by_trans_num(cursor: Cursor, trans_nums: Iterable[str], limit: int) -> dict[str, list[KnownPayment]]:
    """Return the payments by trans_num, at most `limit` of each."""
    found: dict[str, list[KnownPayment]] = {}
    cursor.execute(_BY_TRANS_NUM, (list(dict.fromkeys(trans_nums)), limit))
    for name, *row in cursor.fetchall():
        found.setdefault(name, []).append(KnownPayment.from_row(tuple(row)))
    return found


def payments_by_source(cursor: Cursor, given: list[tuple[str, PaymentSource]]) -> list[list[KnownPayment]]:
    """Return the payments of each trans_num and source, in the same order.

    There are several only for a source without a row.
    """
    found: list[dict[tuple[Any, ...], KnownPayment]] = [{} for _ in given]
    columns = (
        [name for name, _ in given],
        *([getattr(source, part) for _, source in given] for part in ("topic", "partition", "offset", "row")),
    )
    cursor.execute(_BY_SOURCE, columns)
    for number, *row in cursor.fetchall():
        payment = KnownPayment.from_row(tuple(row))
        found[number - 1].setdefault(payment.key, payment)
    return [list(payments.values()) for payments in found]


def confirmed_payments(cursor: Cursor, trans_nums: Iterable[str]) -> dict[tuple[Any, ...], tuple[KnownPayment, bool]]:
    """Return by key the payments of these trans_nums that have a verdict, with the verdict (True: fraud)."""
    cursor.execute(_CONFIRMED, (list(dict.fromkeys(trans_nums)),))
    payments = ((KnownPayment.from_row(tuple(row)), fraud) for *row, fraud in cursor.fetchall())
    return {payment.key: (payment, fraud) for payment, fraud in payments}
