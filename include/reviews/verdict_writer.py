"""Stores verdicts in the ledger: a file of any length in a few SQL statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from include.errors import ConfirmationError
from include.ledger.connection import LedgerConnection
from include.ledger.schema import open_ledger
from include.reviews.known_payments import (
    KnownPayment,
    confirmed_payments,
    known_trans_nums,
    payments_by_source,
    payments_by_trans_num,
)
from include.reviews.payment_source import PaymentSource
from include.reviews.verdict_file import BadLine, Verdict, VerdictFile

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

# Transactions that write verdicts or assign them to an export run one after the other.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('fraud confirmations'))"
_CONFIRM = """
INSERT INTO ledger.confirmations AS known (
    trans_num, source_topic, source_partition, source_offset, source_row, fraud, confirmed_by, origin
)
SELECT name, topic, partition, "offset", row, fraud, %s, %s
FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[], %s::boolean[])
    AS given (name, topic, partition, "offset", row, fraud)
ON CONFLICT (trans_num, source_topic, source_partition, source_offset, source_row) DO UPDATE
SET (fraud, confirmed_by, confirmed_at, origin) = (excluded.fraud, excluded.confirmed_by, now(), excluded.origin)
WHERE (known.fraud, known.confirmed_by) IS DISTINCT FROM (excluded.fraud, excluded.confirmed_by)
"""
_LISTED_SOURCES = 20
_Verdicts = dict[tuple[Any, ...], tuple[KnownPayment, bool]]


@dataclass(frozen=True)
class VerdictCounts:
    """How many payments got a verdict, by what they had before.

    `applied`: none. `changed`: another one. `unchanged`: the same one; a different reviewer is stored all the same.
    `passed_over`: lines without a verdict. `bad`: lines that were not applied.
    """

    applied: int = 0
    changed: int = 0
    unchanged: int = 0
    passed_over: int = 0
    bad: tuple[BadLine, ...] = ()

    def __str__(self) -> str:
        return (
            f"applied {self.applied:,}, changed {self.changed:,}, unchanged {self.unchanged:,}, "
            f"passed over {self.passed_over:,}, bad {len(self.bad):,}"
        )


@dataclass(frozen=True)
class VerdictWriter:
    """Writes verdicts over an open connection, each call in one transaction."""

    connection: Connection

    @classmethod
    @contextmanager
    def opened(cls, address: LedgerConnection) -> Iterator[VerdictWriter]:
        """Connect to the ledger, and yield a writer. Raise LedgerError as `open_ledger` does."""
        with open_ledger(address, "fraud confirm") as connection:
            yield cls(connection)

    def confirm(
        self, trans_num: str, *, fraud: bool, reviewer: str, source: PaymentSource | None = None
    ) -> VerdictCounts:
        """Store the verdict on one payment. Raise ConfirmationError if the ledger has no such payment, or several."""
        with self._writing() as cursor:
            if source is None:
                found = payments_by_trans_num(cursor, [trans_num], _LISTED_SOURCES + 1).get(trans_num, [])
            else:
                [found] = payments_by_source(cursor, [(trans_num, source)])
            if not found:
                where = "" if source is None else f" at {source}"
                raise ConfirmationError(f"the ledger has no payment{where} with the trans_num {trans_num}")
            if len(found) > 1:
                raise ConfirmationError(_describe_ambiguity(trans_num, found))
            return _apply(cursor, {found[0].key: (found[0], fraud)}, reviewer, "fraud confirm")

    def confirm_all(
        self, file: VerdictFile, *, reviewer: str, origin: str, all_or_nothing: bool = False
    ) -> VerdictCounts:
        """Store the verdicts of all valid lines; with `all_or_nothing`, none if a line is invalid.

        `origin` is stored with each verdict: the command or program that it comes from.
        """
        with self._writing() as cursor:
            found, not_found = _find_payments(cursor, file.verdicts)
            consistent, contradicting = _split_contradictions(found)
            bad = sorted([*file.bad, *not_found, *contradicting], key=lambda bad_line: bad_line.line)
            counts = VerdictCounts() if bad and all_or_nothing else _apply(cursor, consistent, reviewer, origin)
        return replace(counts, passed_over=file.passed_over, bad=tuple(bad))

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(LOCK)
            yield cursor


def _describe_ambiguity(trans_num: str, found: list[KnownPayment]) -> str:
    shown = sorted(
        (payment.source for payment in found[:_LISTED_SOURCES]),
        key=lambda source: (source.partition, source.offset, source.row),
    )
    sources = ", ".join(map(str, shown))
    more = " and more" if len(found) > _LISTED_SOURCES else ""
    count = f"more than {_LISTED_SOURCES}" if more else str(len(found))
    return (
        f"{count} payments have the trans_num {trans_num}. Choose one by --source and --row: {sources}{more}. "
        f"`fraud trace {trans_num}` shows them"
    )


def _find_payments(cursor: Cursor, verdicts: list[Verdict]) -> tuple[list[tuple[Verdict, KnownPayment]], list[BadLine]]:
    """Return each verdict with its payment, and the lines whose payment is unknown or ambiguous."""
    names = known_trans_nums(cursor, (name for verdict in verdicts for name in verdict.trans_nums))
    bad: list[BadLine] = []
    with_source: list[tuple[Verdict, str, PaymentSource]] = []
    without_source: list[tuple[Verdict, str]] = []
    for verdict in verdicts:
        name = next((name for name in verdict.trans_nums if name in names), None)
        if name is None:
            bad.append(BadLine(verdict.line, "has a trans_num that is not in the ledger"))
        elif verdict.source is None:
            without_source.append((verdict, name))
        else:
            with_source.append((verdict, name, verdict.source))
    by_name = payments_by_trans_num(cursor, (name for _, name in without_source), 2)
    by_source = payments_by_source(cursor, [(name, source) for _, name, source in with_source])
    candidates = [
        *((verdict, by_name.get(name, [])) for verdict, name in without_source),
        *((verdict, payments) for (verdict, *_), payments in zip(with_source, by_source, strict=True)),
    ]
    found = []
    for verdict, payments in candidates:
        if not payments:
            bad.append(BadLine(verdict.line, "has a source at which the ledger has no payment with that trans_num"))
        elif len(payments) > 1:
            reason = "has a trans_num of several payments: add the columns source and row, as reports have them"
            bad.append(BadLine(verdict.line, reason))
        else:
            found.append((verdict, payments[0]))
    return found, bad


def _split_contradictions(found: Iterable[tuple[Verdict, KnownPayment]]) -> tuple[_Verdicts, list[BadLine]]:
    """Return one verdict for each payment, and the lines of payments with both verdicts."""
    bad: list[BadLine] = []
    lines: dict[tuple[Any, ...], list[tuple[Verdict, KnownPayment]]] = {}
    for verdict, payment in found:
        lines.setdefault(payment.key, []).append((verdict, payment))
    consistent: _Verdicts = {}
    for key, given in lines.items():
        verdicts = sorted((verdict for verdict, _ in given), key=lambda verdict: verdict.line)
        if len({verdict.fraud for verdict in verdicts}) == 1:
            consistent[key] = given[0][1], verdicts[0].fraud
            continue
        for verdict in verdicts:
            other = next(another.line for another in verdicts if another.fraud != verdict.fraud)
            bad.append(BadLine(verdict.line, f"contradicts line {other}, which has the same payment"))
    return consistent, bad


def _apply(cursor: Cursor, verdicts: _Verdicts, reviewer: str, origin: str) -> VerdictCounts:
    """Store the verdicts and return how many payments had which verdict before.

    If a payment already has a verdict under another source, that source is kept, so that it has only one verdict.
    """
    before = confirmed_payments(cursor, (payment.trans_num for payment, _ in verdicts.values()))
    given = [(before[key][0] if key in before else payment, fraud) for key, (payment, fraud) in verdicts.items()]
    given.sort(key=lambda pair: pair[0].trans_num)
    sources = [payment.source for payment, _ in given]
    columns = (
        [payment.trans_num for payment, _ in given],
        *([getattr(source, part) for source in sources] for part in ("topic", "partition", "offset", "row")),
        [fraud for _, fraud in given],
    )
    cursor.execute(_CONFIRM, (reviewer, origin, *columns))
    earlier = [before[key][1] == fraud for key, (_, fraud) in verdicts.items() if key in before]
    return VerdictCounts(len(given) - len(earlier), earlier.count(False), earlier.count(True))
