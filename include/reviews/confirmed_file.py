"""Writes confirmed payments as a Parquet file of training data.

The columns are as they were published; the label is the verdict.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.coerce import coerce
from include.models.column import CURRENT_TIME, Column
from include.models.frame import DERIVATIONS
from include.payments.columns import COLUMNS, MEASURED, PREDICTION
from include.report.fraud import Number
from include.reviews.verdict_file import TRANS_NUM

if TYPE_CHECKING:
    import pyarrow as pa

_INTEGERS = ("unix_time", PREDICTION)


@dataclass(frozen=True, slots=True)
class ConfirmedPayment:
    """A payment with its verdict. `payment` is the JSON object that was published."""

    trans_num: str
    fraud: bool
    payment: str


class ConfirmedFile:
    """Builds the file in memory, compressed with zstd. Call `bytes` once all payments are added."""

    def __init__(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        self.payments = 0
        self._buffer = io.BytesIO()
        kinds = dict.fromkeys(MEASURED, pa.float64()) | dict.fromkeys(_INTEGERS, pa.int64())
        self._schema: pa.Schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
        self._writer = ParquetWriter(self._buffer, self._schema, compression="zstd")

    def add(self, payments: Sequence[ConfirmedPayment]) -> None:
        """Append payments to the file."""
        import pyarrow as pa

        columns = _columns(payments)
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self.payments += len(payments)

    def bytes(self) -> bytes:
        """Close the file and return its content."""
        self._writer.close()
        return self._buffer.getvalue()


def _columns(payments: Iterable[ConfirmedPayment]) -> dict[str, list[Any]]:
    rows = [_values(payment) for payment in payments]
    return {name: _column(name, [row.get(name) for row in rows]) for name in COLUMNS}


def _values(payment: ConfirmedPayment) -> dict[str, Any]:
    """Return the payment's columns. Numbers keep all digits, because a card number of 19 digits is stored as text."""
    values: dict[str, Any] = json.loads(payment.payment, parse_int=Number, parse_float=Number, parse_constant=Number)
    if CURRENT_TIME in values:
        # The values that the model received.
        derived = {name: derive(values[CURRENT_TIME]) for name, derive in DERIVATIONS.items() if name not in values}
        values |= {name: value for name, value in derived.items() if value is not msgspec.UNSET}
    return values | {TRANS_NUM: payment.trans_num, PREDICTION: int(payment.fraud)}


def _column(name: str, values: list[Any]) -> list[Any]:
    """Return a column's values for Parquet. Text in a column of numbers becomes null."""
    if name in MEASURED or name in _INTEGERS:
        values, bad = coerce(values, Column(name, "int64" if name in _INTEGERS else "float64"))
        for index in bad:
            values[index] = None
        return [None if value is None or not isfinite(value) else value for value in values]
    return [_text(value) for value in values]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else json.dumps(value)
    # JSON may hold half of a surrogate pair, which UTF-8 cannot encode.
    return text.encode(errors="replace").decode()
