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
from include.ledger.verdicts import TRANS_NUM, VERDICT
from include.payments.masking import mask_card
from include.report.csv_attachment import BOM, cell

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


def _time(table: str) -> str:
    """By which all predictions have an order."""
    place = ", ".join(f"{table}.source_{name}" for name in ("topic", "partition", "offset", "row"))
    return f"({table}.scored_at, coalesce({table}.replaced_at, 'infinity'), {place})"


def _stands(table: str) -> str:
    """Of a payment that came or was scored again, the newest prediction counts; not that of another payment, to which
    somebody gave the same trans_num."""
    return f"""NOT EXISTS (
    SELECT FROM ledger.published_predictions AS newer WHERE newer.trans_num = {table}.trans_num
    AND (newer.cc_num, newer.amt, newer.paid_at) IS NOT DISTINCT FROM ({table}.cc_num, {table}.amt, {table}.paid_at)
    AND {_time("newer")} > {_time(table)}
)"""  # noqa: S608


# Along the indexes of frauds, for so long as it takes to find so many. A trans_num is listed once.
_UNREVIEWED = f"""
SELECT trans_num, paid_at, amt, merchant, fraud_probability,
    coalesce(model_name || ' ' || model_version, model_run_id), scored_at, cc_num
FROM ledger.published_predictions AS found
WHERE prediction AND trans_num IS NOT NULL
  AND NOT EXISTS (SELECT FROM ledger.confirmations WHERE confirmations.trans_num = found.trans_num)
  AND {_stands("found")}
  AND NOT EXISTS (
    SELECT FROM ledger.published_predictions AS other
    WHERE other.trans_num = found.trans_num AND other.prediction AND {_time("other")} > {_time("found")}
    AND {_stands("other")}
  )
ORDER BY scored_at DESC, coalesce(replaced_at, 'infinity') DESC,
    source_topic DESC, source_partition DESC, source_offset DESC, source_row DESC
LIMIT %s
"""  # noqa: S608


@dataclass(frozen=True)
class Unreviewed:
    """`card` is masked. Times are in UTC."""

    trans_num: str
    paid_at: datetime | None
    amt: Decimal | None
    merchant: str | None
    fraud_probability: float | None
    model: str
    scored_at: datetime
    card: str

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
        }


def unreviewed(connection: Connection, most: int) -> list[Unreviewed]:
    with connection, connection.cursor() as cursor:
        cursor.execute(_UNREVIEWED, (most,))
        return [Unreviewed(*(*known, mask_card(card or ""))) for *known, card in cursor.fetchall()]


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
