"""What people say of payments: was it fraud? Whole files of verdicts are applied by a few statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

# Those who write verdicts or assign them to an export do so one after the other: neither sees half of the other's.
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
_SHOWN = 20
_Verdicts = dict[tuple[Any, ...], tuple[KnownPayment, bool]]


@dataclass(frozen=True)
class VerdictCounts:
    """`applied`: payments that had no verdict. `unchanged`: that had this one, though perhaps by somebody else, which
    is kept. `passed_over`: lines without a verdict."""

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
    connection: Connection

    @classmethod
    @contextmanager
    def opened(cls, address: LedgerConnection) -> Iterator[VerdictWriter]:
        with open_ledger(address, "fraud confirm") as connection:
            yield cls(connection)

    def confirm(self, trans_num: str, *, fraud: bool, by: str, source: PaymentSource | None = None) -> VerdictCounts:
        """Raises ConfirmationError where the ledger has no such payment, or several."""
        with self._writing() as cursor:
            if source is None:
                found = payments_by_trans_num(cursor, [trans_num], _SHOWN + 1).get(trans_num, [])
            else:
                [found] = payments_by_source(cursor, [(trans_num, source)])
            if not found:
                place = "" if source is None else f" at {source}"
                raise ConfirmationError(
                    f"the ledger has no payment{place} whose trans_num is {trans_num}: nothing is changed"
                )
            if len(found) > 1:
                raise ConfirmationError(_several(trans_num, found))
            return _apply(cursor, {found[0].key: (found[0], fraud)}, by, "fraud confirm")

    def confirm_all(self, file: VerdictFile, *, by: str, origin: str, all_or_nothing: bool = False) -> VerdictCounts:
        """All lines that are good, in one transaction; or none, if so wanted, where one is bad."""
        with self._writing() as cursor:
            found, unusable = _found(cursor, file.verdicts)
            agreed, contradicting = _agreed(found)
            bad = sorted([*file.bad, *unusable, *contradicting], key=lambda one: one.line)
            done = VerdictCounts() if bad and all_or_nothing else _apply(cursor, agreed, by, origin)
        return VerdictCounts(done.applied, done.changed, done.unchanged, file.passed_over, tuple(bad))

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(LOCK)
            yield cursor


def _several(trans_num: str, found: list[KnownPayment]) -> str:
    shown = sorted((payment.source for payment in found[:_SHOWN]), key=lambda one: (one.partition, one.offset, one.row))
    places = ", ".join(map(str, shown))
    more = " and more" if len(found) > _SHOWN else ""
    count = f"more than {_SHOWN}" if more else str(len(found))
    return (
        f"{count} payments have the trans_num {trans_num}: nothing is changed. Say which one is meant by --source and "
        f"--row: {places}{more}. `fraud trace {trans_num}` shows them"
    )


def _found(cursor: Cursor, verdicts: list[Verdict]) -> tuple[list[tuple[Verdict, KnownPayment]], list[BadLine]]:
    """Return each verdict with its payment, and the lines whose payment is unknown or ambiguous."""
    names = known_trans_nums(cursor, (name for one in verdicts for name in one.names))
    bad: list[BadLine] = []
    named: list[tuple[Verdict, str, PaymentSource]] = []
    unnamed: list[tuple[Verdict, str]] = []
    for verdict in verdicts:
        name = next((name for name in verdict.names if name in names), None)
        if name is None:
            bad.append(BadLine(verdict.line, "has a trans_num that no payment in the ledger has"))
        elif verdict.source is None:
            unnamed.append((verdict, name))
        else:
            named.append((verdict, name, verdict.source))
    of_names = payments_by_trans_num(cursor, (name for _, name in unnamed), 2)
    at_sources = payments_by_source(cursor, [(name, source) for _, name, source in named])
    of_verdicts = [
        *((verdict, of_names.get(name, [])) for verdict, name in unnamed),
        *((verdict, payments) for (verdict, *_), payments in zip(named, at_sources, strict=True)),
    ]
    found = []
    for verdict, payments in of_verdicts:
        if not payments:
            bad.append(BadLine(verdict.line, "has a source at which the ledger has no payment of that trans_num"))
        elif len(payments) > 1:
            why = "has a trans_num that several payments share: name one in the columns source and row, as reports do"
            bad.append(BadLine(verdict.line, why))
        else:
            found.append((verdict, payments[0]))
    return found, bad


def _agreed(found: Iterable[tuple[Verdict, KnownPayment]]) -> tuple[_Verdicts, list[BadLine]]:
    """The verdict of each payment, and the lines of those that have both verdicts."""
    bad: list[BadLine] = []
    lines: dict[tuple[Any, ...], list[tuple[Verdict, KnownPayment]]] = {}
    for verdict, payment in found:
        lines.setdefault(payment.key, []).append((verdict, payment))
    agreed: _Verdicts = {}
    for key, given in lines.items():
        verdicts = sorted((verdict for verdict, _ in given), key=lambda one: one.line)
        if len({verdict.fraud for verdict in verdicts}) == 1:
            agreed[key] = given[0][1], verdicts[0].fraud
            continue
        for verdict in verdicts:
            other = next(one.line for one in verdicts if one.fraud != verdict.fraud)
            bad.append(BadLine(verdict.line, f"contradicts line {other}, which is of the same payment"))
    return agreed, bad


def _apply(cursor: Cursor, verdicts: _Verdicts, by: str, origin: str) -> VerdictCounts:
    """Store the verdicts. A payment that already has a verdict under another source keeps that source, so it has only
    one."""
    before = confirmed_payments(cursor, (payment.trans_num for payment, _ in verdicts.values()))
    given = [(before[key][0] if key in before else payment, fraud) for key, (payment, fraud) in verdicts.items()]
    given.sort(key=lambda one: one[0].trans_num)
    places = [payment.source for payment, _ in given]
    columns = (
        [payment.trans_num for payment, _ in given],
        *([getattr(place, part) for place in places] for part in ("topic", "partition", "offset", "row")),
        [fraud for _, fraud in given],
    )
    cursor.execute(_CONFIRM, (by, origin, *columns))
    earlier = [before[key][1] == fraud for key, (_, fraud) in verdicts.items() if key in before]
    return VerdictCounts(len(given) - len(earlier), earlier.count(False), earlier.count(True))
