"""What people say of payments: was it fraud? Whole files of verdicts are applied by a few statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import ConfirmationError
from include.ledger.address import Address
from include.ledger.schema import open_ledger
from include.ledger.verdicts import BadLine, Verdict, VerdictFile

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

# Those who write verdicts or assign them to an export do so one after the other: neither sees half of the other's.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('fraud confirmations'))"
_KNOWN = """
SELECT name FROM unnest(%s::text[]) AS name
WHERE EXISTS (SELECT FROM ledger.published_predictions WHERE published_predictions.trans_num = name)
"""
_BEFORE = "SELECT trans_num, fraud FROM unnest(%s::text[]) AS trans_num JOIN ledger.confirmations USING (trans_num)"
_CONFIRM = """
INSERT INTO ledger.confirmations AS known (trans_num, fraud, confirmed_by, origin)
SELECT trans_num, fraud, %s, %s FROM unnest(%s::text[], %s::boolean[]) AS given (trans_num, fraud)
ON CONFLICT (trans_num) DO UPDATE
SET (fraud, confirmed_by, confirmed_at, origin) = (excluded.fraud, excluded.confirmed_by, now(), excluded.origin)
WHERE (known.fraud, known.confirmed_by) IS DISTINCT FROM (excluded.fraud, excluded.confirmed_by)
"""


@dataclass(frozen=True)
class Confirmed:
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
class Confirmations:
    connection: Connection

    @classmethod
    @contextmanager
    def opened(cls, address: Address) -> Iterator[Confirmations]:
        with open_ledger(address, "fraud confirm") as connection:
            yield cls(connection)

    def confirm(self, trans_num: str, *, fraud: bool, by: str) -> Confirmed:
        """Raises ConfirmationError where the ledger has no such payment."""
        with self._writing() as cursor:
            if not _known(cursor, [trans_num]):
                raise ConfirmationError(f"the ledger has no payment whose trans_num is {trans_num}: nothing is changed")
            return _apply(cursor, {trans_num: fraud}, by, "fraud confirm")

    def confirm_all(self, file: VerdictFile, *, by: str, origin: str, all_or_nothing: bool = False) -> Confirmed:
        """All lines that are good, in one transaction; or none, if so wanted, where one is bad."""
        with self._writing() as cursor:
            verdicts, bad = _agreed(
                file.verdicts, _known(cursor, (name for one in file.verdicts for name in one.names))
            )
            bad = sorted([*file.bad, *bad], key=lambda one: one.line)
            done = Confirmed() if bad and all_or_nothing else _apply(cursor, verdicts, by, origin)
        return Confirmed(done.applied, done.changed, done.unchanged, file.passed_over, tuple(bad))

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(LOCK)
            yield cursor


def _known(cursor: Cursor, names: Iterable[str]) -> set[str]:
    cursor.execute(_KNOWN, (list(dict.fromkeys(names)),))
    return {name for (name,) in cursor.fetchall()}


def _agreed(given: Iterable[Verdict], known: set[str]) -> tuple[dict[str, bool], list[BadLine]]:
    """The verdict of each payment, and the lines of those that are unknown, or that have both verdicts."""
    bad: list[BadLine] = []
    lines: dict[str, list[Verdict]] = {}
    for verdict in given:
        found = next((name for name in verdict.names if name in known), None)
        if found is None:
            bad.append(BadLine(verdict.line, "has a trans_num that no payment in the ledger has"))
        else:
            lines.setdefault(found, []).append(verdict)
    agreed = {}
    for name, verdicts in lines.items():
        if len({verdict.fraud for verdict in verdicts}) == 1:
            agreed[name] = verdicts[0].fraud
            continue
        for verdict in verdicts:
            other = next(one.line for one in verdicts if one.fraud != verdict.fraud)
            bad.append(BadLine(verdict.line, f"contradicts line {other}, which is of the same payment"))
    return agreed, bad


def _apply(cursor: Cursor, verdicts: dict[str, bool], by: str, origin: str) -> Confirmed:
    names = sorted(verdicts)
    cursor.execute(_BEFORE, (names,))
    before = dict(cursor.fetchall())
    cursor.execute(_CONFIRM, (by, origin, names, [verdicts[name] for name in names]))
    unchanged = sum(verdicts[name] == fraud for name, fraud in before.items())
    return Confirmed(len(names) - len(before), len(before) - unchanged, unchanged)
