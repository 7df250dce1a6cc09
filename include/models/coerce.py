"""Convert a payment's values to the type of their column in the training frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from include.models.column import Column, payment_column

_RANGES = {"int32": range(-(2**31), 2**31), "int64": range(-(2**63), 2**63)}
# A number in JSON, or with blanks around it. Python also reads 1_000, nan and the digits of other scripts.
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Larger floats skip whole numbers, so that a card number could change.
_MAX_EXACT_FLOAT = 2**53


def coerce(values: list[Any], column: Column) -> tuple[list[Any], list[int]]:
    """Return the values, converted to the column's kind, and the indices of those that cannot be converted.

    Missing values and null stay as they are, and so does a value that cannot be converted.
    """
    conversion = (_SIGNATURE_CONVERSIONS if column.declared else _CONTRACT_CONVERSIONS).get(column.kind)
    if conversion is None:
        return values, []
    if column.kind == "text" and payment_column(column.name).is_whole:
        # JSON's 94103.0 is 94103.
        values = [_float_to_int(value) for value in values]
    converted, bad = list(values), []
    for index, value in enumerate(values):
        if value is None or value is msgspec.UNSET:
            continue
        try:
            converted[index] = conversion(value)
        except (ValueError, TypeError, OverflowError):
            bad.append(index)
    return converted, bad


def matches_kind(types: set[type], column: Column) -> bool:
    """Return whether values of these types need no conversion; in nearly all batches they need none.

    A whole number may still be too large for its column.
    """
    expected = _TYPES_OF_KIND.get(column.kind)
    return types <= expected if expected is not None else column.kind not in _SIGNATURE_CONVERSIONS


def _to_float(value: Any) -> float:
    if isinstance(value, bool | list | dict):
        raise TypeError
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    return float(value)


def _to_int(kind: str) -> Callable[[Any], int]:
    allowed = _RANGES[kind]

    def convert(value: Any) -> int:
        if isinstance(value, bool | list | dict):
            raise TypeError
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise ValueError
            # A float would change the digits of a card number.
            value = Decimal(value)
        number = int(value)
        if number != value or number not in allowed:
            raise ValueError
        return number

    return convert


def _to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError


def _to_boolean(value: Any) -> bool:
    if isinstance(value, str):
        value = _BOOLEANS.get(value.strip().lower())
    if value not in (0, 1) or value is None:
        raise ValueError
    return bool(value)


def _to_datetime(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    time = datetime.fromisoformat(value)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def _int_to_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _float_to_int(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT else value


_SIGNATURE_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int32": _to_int("int32"),
    "int64": _to_int("int64"),
    "float32": _to_float,
    "float64": _to_float,
    "text": _to_text,
    "boolean": _to_boolean,
    "datetime": _to_datetime,
}
_CONTRACT_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"int64": _float_to_int, "float64": _int_to_float}
# NumPy converts an int in a column of floats.
_TYPES_OF_KIND: dict[str, frozenset[type]] = {
    "int32": frozenset((int,)),
    "int64": frozenset((int,)),
    "float32": frozenset((float, int)),
    "float64": frozenset((float, int)),
    "text": frozenset((str,)),
    "boolean": frozenset((bool,)),
}
