"""Lists frauds without a verdict, newest first, and writes them as a CSV that a reviewer fills in."""

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
# PostgreSQL follows the index of frauds, newest first, until enough are found. A verdict on a payment counts for all
# predictions of that payment.
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
# If a payment was sent or scored again, its newest prediction counts, but not that of another payment with the same
# trans_num.
_IS_OLD = f"""
SELECT FROM ledger.published_predictions
WHERE trans_num = %s AND scored_at >= %s AND ({_CONTENT}) IS NOT DISTINCT FROM (%s, %s, %s, %s, %s)
  AND ({", ".join(_ORDER)}) > (%s, coalesce(%s::timestamptz, 'infinity'), %s, %s, %s, %s) LIMIT 1
"""  # noqa: S608
_FETCHED_ROWS = 500


@dataclass(frozen=True)
class UnreviewedFraud:
    """A payment that was predicted to be fraud and has no verdict. `card` is masked, times are in UTC."""

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
        """Return the values as text, by column."""
        return {
            TRANS_NUM: self.trans_num,
            "paid_at": _utc_text(self.paid_at),
            "amt": "" if self.amt is None else str(self.amt),
            "merchant": self.merchant or "",
            "fraud_probability": "" if self.fraud_probability is None else f"{self.fraud_probability:.3f}",
            "model": self.model,
            "scored_at": _utc_text(self.scored_at),
            "card": self.card,
            "source": self.source,
            "row": str(self.row),
        }


def unreviewed(connection: Connection, limit: int) -> list[UnreviewedFraud]:
    """Return at most `limit` frauds, newest first, each payment once even if it was sent or scored again."""
    found: dict[tuple[object, ...], UnreviewedFraud] = {}
    with connection, connection.cursor("frauds") as frauds, connection.cursor() as cursor:
        # Without this, PostgreSQL would read and sort all frauds.
        cursor.execute("SET LOCAL cursor_tuple_fraction = 0.0001")
        frauds.itersize = _FETCHED_ROWS
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
            source = f"{topic}/{partition}/{offset}"
            found[payment] = UnreviewedFraud(*(*shown, mask_card(card or ""), source, row))
            if len(found) == limit:
                break
    return list(found.values())


def write_csv(path: Path, frauds: Iterable[UnreviewedFraud]) -> None:
    """Write the frauds and an empty column for verdicts to a file that only this user can read.

    Raise ConfirmationError if the file exists, because it may hold verdicts, or cannot be written.
    """
    rows = [[*map(cell, fraud.texts().values()), ""] for fraud in frauds]
    names = [*UnreviewedFraud.__dataclass_fields__, VERDICT]
    try:
        with _draft(path.parent) as draft:
            with draft.open("w", encoding="utf-8", newline="", errors="replace") as file:
                file.write(BOM.decode())
                csv.writer(file).writerows([names, *rows])
            # `touch` fails if the file exists; `replace` alone would overwrite it.
            path.touch(0o600, exist_ok=False)
            draft.replace(path)
    except FileExistsError:
        raise ConfirmationError(f"{path} exists and may hold verdicts: give another name") from None
    except OSError as error:
        raise ConfirmationError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield an empty file that only this user can read. It is deleted at the end unless it was moved."""
    number, name = tempfile.mkstemp(prefix=".fraud-", dir=folder)
    os.close(number)
    draft = Path(name)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _utc_text(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"
