"""Convert a column of values to a typed series, and classify each value.

Values of one class share a series. The class depends on the value and its column only, never on another payment.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.column import Column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Classified = tuple[int | npt.NDArray[np.int64], npt.NDArray[np.int64 | np.float64] | None]

WHOLE, FRACTION, TEXT, NULL, BOOLEAN, TIME, HUGE, UNSIGNED, BIG, OTHER, MISSING = range(11)
WORDS = (
    "a number", "a number", "text", "null", "true or false", "a time", *["a number too large"] * 3, "another value", "",
)  # fmt: skip
CLASSES = len(WORDS)
_CLASSES = {str: TEXT, type(None): NULL, bool: BOOLEAN, datetime: TIME, msgspec.UnsetType: MISSING}
_LARGEST_FLOAT32 = 3.4028234663852886e38
_RANGES = {"int32": range(-(2**31), 2**31)}
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def classify(values: list[Any], types: set[type], column: Column) -> Classified:
    """Return the class of each value, or one number where all have the same; and all numbers as an array where the
    values, of these `types`, are ordinary numbers of one class, which is the common case and the quick one."""
    import numpy as np

    if types and types <= {int, float} and (len(types) == 1 or column.kind.startswith("float")):
        as_float = column.kind.startswith("float") or types == {float}
        try:
            numbers = np.fromiter(values, np.float64 if as_float else np.int64, len(values))
        except OverflowError:
            pass
        else:
            kind = FRACTION if as_float else WHOLE
            limit = 2**31 if column.kind == "int32" else 2**63
            # Not by abs(), which leaves the smallest whole number negative. NaN compares false, so a column with NaN is
            # classified value by value.
            if -limit < numbers.min() and numbers.max() < limit:
                return kind, numbers.astype(_dtype(kind, column), copy=False)
    elif len(types) == 1:
        return _CLASSES.get(next(iter(types)), OTHER), None
    codes = np.fromiter((_class_of(value, column) for value in values), dtype=np.int64, count=len(values))
    return (int(codes[0]) if len(codes) and (codes == codes[0]).all() else codes), None


def _class_of(value: Any, column: Column) -> int:
    if type(value) not in (int, float):
        return _CLASSES.get(type(value), OTHER)
    if value != value:
        return NULL
    whole = type(value) is int
    if whole and not column.kind.startswith("float"):
        if value in _RANGES.get(column.kind, _INT64):
            return WHOLE
        return UNSIGNED if value in _UINT64 else BIG
    if -_LARGEST_FLOAT32 <= value <= _LARGEST_FLOAT32:
        return FRACTION
    return BIG if whole else HUGE


def series(values: list[Any], kind: int, column: Column) -> Any:
    """Return values that are all of the class `kind` in the type that they have in the frame of training."""
    import numpy as np
    import pandas as pd

    if kind in (WHOLE, FRACTION):
        return np.array(values, dtype=_dtype(kind, column))
    if kind == NULL:
        return _nulls(len(values), column)
    if kind == TEXT:
        try:
            return pd.array(values, dtype="str")
        except UnicodeError:
            return pd.Series(values, dtype=object)
    # No value may change the type of another of its class.
    dtype = {TIME: "datetime64[us]", UNSIGNED: "uint64", BOOLEAN: "bool", HUGE: "float64"}.get(kind, "object")
    return pd.Series(values, dtype=dtype)


def _dtype(kind: int, column: Column) -> str:
    if kind == FRACTION:
        return column.kind if column.kind.startswith("float") else "float64"
    return column.kind if column.is_whole else "int64"


def _nulls(count: int, column: Column) -> Any:
    """Return what pandas makes of the empty fields of a CSV file's column of that kind."""
    import numpy as np
    import pandas as pd

    if column.is_number:
        # A column of whole numbers with an empty field is one of floats.
        return np.full(count, np.nan, dtype="float32" if column.kind == "float32" else "float64")
    if column.kind == "text":
        return pd.array([np.nan] * count, dtype="str")
    if column.kind == "datetime":
        return pd.Series([pd.NaT] * count, dtype="datetime64[us]")
    return pd.Series([np.nan] * count, dtype=object)
