"""Frauds that nobody has reviewed yet, newest first: for a terminal, or as a CSV that is given back with verdicts."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from include.errors import ConfirmationError
from include.payments.masking import mask_card
from include.report.csv_attachment import BOM, cell
from include.reviews.payment_source import CONTENT_COLUMNS, SOURCE_COLUMNS
from include.reviews.verdict_file import TRANS_NUM, VERDICT

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

_ORDER = ("scored_at", "coalesce(replaced_at, 'infinity')", *SOURCE_COLUMNS)
_CONTENT = ", ".join(CONTENT_COLUMNS)
# Along the indexes of frauds, newest first, for so long as it takes to find enough. A verdict on a payment holds
# wherever that payment stands.
_FRAUDS = f"""
SELECT trans_num, paid_at, amt, merchant, fraud_probability,
    coalesce(model_name || ' ' || model_version, model_run_id), scored_at, cc_num, category, replaced_at,
    {", ".join(SOURCE_COLUMNS)}
FROM ledger.published_predictions AS found
WHERE prediction AND trans_num IS NOT NULL
  AND NOT EXISTS (
    SELECT FROM ledger.confirmations AS known WHERE known.trans_num = found.trans_num AND (
        ({", ".join(f"known.{name}" for name in SOURCE_COLUMNS)})
            = ({", ".join(f"found.{name}" for name in SOURCE_COLUMNS)})
        OR EXISTS (
            SELECT FROM ledger.published_predictions AS given
            WHERE ({", ".join(f"given.{name}" for name in ("trans_num", *SOURCE_COLUMNS))})
                = ({", ".join(f"known.{name}" for name in ("trans_num", *SOURCE_COLUMNS))})
              AND ({", ".join(f"given.{name}" for name in CONTENT_COLUMNS)})
                IS NOT DISTINCT FROM ({", ".join(f"found.{name}" for name in CONTENT_COLUMNS)})
        )
    )
  )
ORDER BY {", ".join(f"{name} DESC" for name in _ORDER)}
"""  # noqa: S608
# Of a payment that came or was scored again, the newest prediction counts; not that of another payment, to which
# somebody gave the same trans_num.
_IS_OLD = f"""
SELECT FROM ledger.published_predictions
WHERE trans_num = %s AND scored_at >= %s AND ({_CONTENT}) IS NOT DISTINCT FROM (%s, %s, %s, %s, %s)
  AND ({", ".join(_ORDER)}) > (%s, coalesce(%s::timestamptz, 'infinity'), %s, %s, %s, %s) LIMIT 1
"""  # noqa: S608
_AT_ONCE = 500


@dataclass(frozen=True)
class Unreviewed:
    """`card` is masked. Times are in UTC. `source` and `row` name the payment where others have its trans_num."""

    trans_num: str
    paid_at: datetime | None
    amt: Decimal | None
    merchant: str | None
    fraud_probability: float | None
    model: str
    scored_at: datetime
    card: str
    source: str
    row: int

    def texts(self) -> dict[str, str]:
        """By column, as they are shown."""
        return {
            TRANS_NUM: self.trans_num,
            "paid_at": _shown(self.paid_at),
            "amt": "" if self.amt is None else str(self.amt),
            "merchant": self.merchant or "",
            "fraud_probability": "" if self.fraud_probability is None else f"{self.fraud_probability:.3f}",
            "model": self.model,
            "scored_at": _shown(self.scored_at),
            "card": self.card,
            "source": self.source,
            "row": str(self.row),
        }


def unreviewed(connection: Connection, most: int) -> list[Unreviewed]:
    """Each payment once, however often it was sent or scored."""
    found: dict[tuple[object, ...], Unreviewed] = {}
    with connection, connection.cursor("frauds") as frauds, connection.cursor() as cursor:
        # Else PostgreSQL makes ready for all of them, and sorts.
        cursor.execute("SET LOCAL cursor_tuple_fraction = 0.0001")
        frauds.itersize = _AT_ONCE
        frauds.execute(_FRAUDS)
        for *shown, card, category, replaced_at, topic, partition, offset, row in frauds:
            name, paid_at, amt, merchant, *_, scored_at = shown
            content = card, amt, paid_at, merchant, category
            payment = name, *map(str, content)
            if payment in found:
                continue
            order = scored_at, replaced_at, topic, partition, offset, row
            cursor.execute(_IS_OLD, (name, scored_at, *content, *order))
            if cursor.rowcount:
                continue
            place = f"{topic}/{partition}/{offset}"
            found[payment] = Unreviewed(*(*shown, mask_card(card or ""), place, row))
            if len(found) == most:
                break
    return list(found.values())


def write_csv(path: Path, frauds: Iterable[Unreviewed]) -> None:
    """For this user alone, and whole or not at all. A file that is there may hold verdicts already: then
    ConfirmationError."""
    rows = [[*map(cell, fraud.texts().values()), ""] for fraud in frauds]
    names = [*Unreviewed.__dataclass_fields__, VERDICT]
    try:
        with _draft(path.parent) as draft:
            with draft.open("w", encoding="utf-8", newline="", errors="replace") as file:
                file.write(BOM.decode())
                csv.writer(file).writerows([names, *rows])
            # Takes the name, for the move alone would take it from a file that is there.
            path.touch(0o600, exist_ok=False)
            draft.replace(path)
    except FileExistsError:
        raise ConfirmationError(f"{path} is there already, perhaps with verdicts in it: give another name") from None
    except OSError as error:
        raise ConfirmationError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """An empty file, for this user alone, that is gone at the end unless it was moved."""
    number, name = tempfile.mkstemp(prefix=".fraud-", dir=folder)
    os.close(number)
    draft = Path(name)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _shown(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"
