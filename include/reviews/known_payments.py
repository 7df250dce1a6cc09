"""Find the payment that a verdict refers to: by trans_num, or by trans_num and source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.reviews.payment_source import CONTENT_COLUMNS, SOURCE_COLUMNS, PaymentSource

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_PLACE = ", ".join(SOURCE_COLUMNS)
_CONTENT = ", ".join(CONTENT_COLUMNS)
# At the same time: the current prediction before the one that it replaced.
_NEWEST = "scored_at DESC, coalesce(replaced_at, 'infinity') DESC"
KNOWN = """
SELECT name FROM unnest(%s::text[]) AS name
WHERE EXISTS (SELECT FROM ledger.published_predictions WHERE published_predictions.trans_num = name)
"""
# At one source the newest content counts; a payment with several sources is named by its newest one.
OF_NAMES = f"""
SELECT found.* FROM unnest(%s::text[]) AS name CROSS JOIN LATERAL (
    SELECT DISTINCT ON ({_CONTENT}) name AS given, trans_num, {_PLACE}, {_CONTENT} FROM (
        SELECT DISTINCT ON ({_PLACE}) * FROM ledger.published_predictions
        WHERE published_predictions.trans_num = name ORDER BY {_PLACE}, {_NEWEST}
    ) AS placed
    ORDER BY {_CONTENT}, scored_at DESC, {", ".join(f"{column} DESC" for column in SOURCE_COLUMNS)} LIMIT %s
) AS found
"""  # noqa: S608
AT_SOURCES = f"""
SELECT DISTINCT ON (number, {_PLACE}) number, trans_num, {_PLACE}, {_CONTENT}
FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[])
    WITH ORDINALITY AS given (name, topic, partition, "offset", row, number)
JOIN ledger.published_predictions AS found
    ON (source_topic, source_partition, source_offset) = (topic, partition, "offset")
    AND trans_num = name AND (row IS NULL OR source_row = row)
ORDER BY number, {_PLACE}, {_NEWEST}
"""  # noqa: S608
CONFIRMED = f"""
SELECT trans_num, {_PLACE}, {_CONTENT}, fraud
FROM ledger.confirmations JOIN ledger.published_predictions USING (trans_num, {_PLACE})
WHERE trans_num = ANY (%s)
"""  # noqa: S608
_FIRST_OF_CONTENT = 1 + len(SOURCE_COLUMNS)


@dataclass(frozen=True)
class KnownPayment:
    """A payment in the ledger. `content` stays the same when it is sent or scored again; `source.row` is set."""

    trans_num: str
    source: PaymentSource
    content: tuple[Any, ...]

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> KnownPayment:
        """Of trans_num, the columns of the source, and those of the content."""
        return cls(row[0], PaymentSource(*row[1:_FIRST_OF_CONTENT]), row[_FIRST_OF_CONTENT:])

    @property
    def key(self) -> tuple[Any, ...]:
        # NaN does not equal itself.
        return self.trans_num, *map(str, self.content)


def known_trans_nums(cursor: Cursor, names: Iterable[str]) -> set[str]:
    """Return the names that are the trans_num of a payment."""
    cursor.execute(KNOWN, (list(dict.fromkeys(names)),))
    return {name for (name,) in cursor.fetchall()}


def payments_by_trans_num(cursor: Cursor, names: Iterable[str], most: int) -> dict[str, list[KnownPayment]]:
    """Return the payments of each trans_num, at most so many of each."""
    found: dict[str, list[KnownPayment]] = {}
    cursor.execute(OF_NAMES, (list(dict.fromkeys(names)), most))
    for name, *row in cursor.fetchall():
        found.setdefault(name, []).append(KnownPayment.of(tuple(row)))
    return found


def payments_by_source(cursor: Cursor, given: list[tuple[str, PaymentSource]]) -> list[list[KnownPayment]]:
    """Return, of each trans_num and source, the payments there: several only where no row was given."""
    found: list[dict[tuple[Any, ...], KnownPayment]] = [{} for _ in given]
    columns = ([name for name, _ in given], *([getattr(at, part) for _, at in given] for part in _PARTS))
    cursor.execute(AT_SOURCES, columns)
    for number, *row in cursor.fetchall():
        payment = KnownPayment.of(tuple(row))
        found[number - 1].setdefault(payment.key, payment)
    return [list(payments.values()) for payments in found]


_PARTS = ("topic", "partition", "offset", "row")


def confirmed_payments(cursor: Cursor, names: Iterable[str]) -> dict[tuple[Any, ...], tuple[KnownPayment, bool]]:
    """Return the payments of these trans_nums that have a verdict, and what it is, by their key."""
    cursor.execute(CONFIRMED, (list(dict.fromkeys(names)),))
    payments = ((KnownPayment.of(tuple(row)), fraud) for *row, fraud in cursor.fetchall())
    return {payment.key: (payment, fraud) for payment, fraud in payments}
