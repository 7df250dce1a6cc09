"""Values as a signature wants them, for models whose types MLflow enforces."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

_RANGES = {"int32": range(-(2**31), 2**31), "int64": range(-(2**63), 2**63)}
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def coerce(column: list[Any], kind: str) -> tuple[list[Any], list[int]]:
    """The column's values, and the places of those that cannot be of that kind. Missing ones and null stay."""
    conversion = _CONVERSIONS.get(kind)
    if conversion is None or set(map(type, column)) <= _AS_THEY_ARE.get(kind, frozenset()):
        return column, []
    values, bad = list(column), []
    for place, value in enumerate(column):
        if value is None or value is msgspec.UNSET:
            continue
        try:
            values[place] = conversion(value)
        except (ValueError, TypeError, OverflowError):
            bad.append(place)
    return values, bad


def _to_float(value: Any) -> float:
    if isinstance(value, bool | list | dict):
        raise TypeError
    return float(value)


def _to_int(kind: str) -> Callable[[Any], int]:
    allowed = _RANGES[kind]

    def convert(value: Any) -> int:
        if isinstance(value, bool | list | dict):
            raise TypeError
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                value = float(value)
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


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int32": _to_int("int32"),
    "int64": _to_int("int64"),
    "float32": _to_float,
    "float64": _to_float,
    "text": _to_text,
    "boolean": _to_boolean,
    "datetime": _to_datetime,
}
# Nothing to do for these, which is what nearly all batches are made of.
_AS_THEY_ARE: dict[str, frozenset[type]] = {
    "float32": frozenset((float, int)),
    "float64": frozenset((float, int)),
    "text": frozenset((str,)),
    "boolean": frozenset((bool,)),
}
