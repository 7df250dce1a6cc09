"""Values to the type that their column has in the frame that the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from include.models.column import Column, column_of_payment

_RANGES = {"int32": range(-(2**31), 2**31), "int64": range(-(2**63), 2**63)}
# As JSON has them, and with blanks around: Python would also read 1_000, nan and other scripts' digits.
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
_WORDS = {"true": True, "1": True, "false": False, "0": False}
# Beyond it a float no longer holds every whole number, so that a card number could change.
_LARGEST_EXACT = 2**53


def coerce(values: list[Any], column: Column) -> tuple[list[Any], list[int]]:
    """Return the values as the column's kind has them, and the places of those that cannot be of that kind.

    Missing values and null stay as they are, and so does a value that cannot be converted.
    """
    conversion = (_DECLARED if column.declared else _CONTRACT).get(column.kind)
    if conversion is None:
        return values, []
    if column.kind == "text" and column_of_payment(column.name).is_whole:
        # JSON's 94103.0 is 94103.
        values = [_number_to_int(value) for value in values]
    found, bad = list(values), []
    for place, value in enumerate(values):
        if value is None or value is msgspec.UNSET:
            continue
        try:
            found[place] = conversion(value)
        except (ValueError, TypeError, OverflowError):
            bad.append(place)
    return found, bad


def fits(types: set[type], column: Column) -> bool:
    """Return whether values of these types need no conversion, which is so for nearly all batches.

    A whole number may still be too large for its column.
    """
    as_they_are = _AS_THEY_ARE.get(column.kind)
    return types <= as_they_are if as_they_are is not None else column.kind not in _DECLARED


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
            # Digit for digit: a float would change a card number.
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
        value = _WORDS.get(value.strip().lower())
    if value not in (0, 1) or value is None:
        raise ValueError
    return bool(value)


def _to_datetime(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    time = datetime.fromisoformat(value)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def _number_to_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _number_to_int(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= _LARGEST_EXACT else value


_DECLARED: dict[str, Callable[[Any], Any]] = {
    "int32": _to_int("int32"),
    "int64": _to_int("int64"),
    "float32": _to_float,
    "float64": _to_float,
    "text": _to_text,
    "boolean": _to_boolean,
    "datetime": _to_datetime,
}
_CONTRACT: dict[str, Callable[[Any], Any]] = {"int64": _number_to_int, "float64": _number_to_float}
# An int in a column of floats becomes one when the column is made.
_AS_THEY_ARE: dict[str, frozenset[type]] = {
    "int32": frozenset((int,)),
    "int64": frozenset((int,)),
    "float32": frozenset((float, int)),
    "float64": frozenset((float, int)),
    "text": frozenset((str,)),
    "boolean": frozenset((bool,)),
}
