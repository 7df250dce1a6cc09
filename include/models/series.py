"""Classify the values of a column, and convert values of one class to a typed series.

Values of one class share a series. A value's class depends on the value and its column only, never on other payments.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.column import Column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    ColumnClasses = tuple[int | npt.NDArray[np.int64], npt.NDArray[np.int64 | np.float64] | None]

# BIG is a whole number outside uint64, UNSIGNED one of uint64 outside int64, HUGE a fraction outside float32.
WHOLE, FRACTION, TEXT, NULL, BOOLEAN, TIME, HUGE, UNSIGNED, BIG, OTHER, MISSING = range(11)
CLASS_NAMES = (
    "a number", "a number", "text", "null", "true or false", "a time", *["a number too large"] * 3, "another value", "",
)  # fmt: skip
CLASS_COUNT = len(CLASS_NAMES)
_CLASS_BY_TYPE = {str: TEXT, type(None): NULL, bool: BOOLEAN, datetime: TIME, msgspec.UnsetType: MISSING}
_LARGEST_FLOAT32 = 3.4028234663852886e38
_RANGES = {"int32": range(-(2**31), 2**31)}
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def classify(values: list[Any], types: set[type], column: Column) -> ColumnClasses:
    """Return the class of each value, or a single class if all values have the same.

    `types` are the types of the values. The second item is the values as an array if all are numbers of one class
    within the column's range, else None: that is the common case, and fast.
    """
    import numpy as np

    if types and types <= {int, float} and (len(types) == 1 or column.kind.startswith("float")):
        as_float = column.kind.startswith("float") or types == {float}
        try:
            numbers = np.fromiter(values, np.float64 if as_float else np.int64, len(values))
        except OverflowError:
            pass
        else:
            value_class = FRACTION if as_float else WHOLE
            limit = 2**31 if column.kind == "int32" else 2**63
            # abs() would not do: the smallest int64 stays negative. NaN compares false, so a column with NaN is
            # classified value by value.
            if -limit < numbers.min() and numbers.max() < limit:
                return value_class, numbers.astype(_dtype(value_class, column), copy=False)
    elif len(types) == 1:
        return _CLASS_BY_TYPE.get(next(iter(types)), OTHER), None
    classes = np.fromiter((_classify_value(value, column) for value in values), dtype=np.int64, count=len(values))
    return (int(classes[0]) if len(classes) and (classes == classes[0]).all() else classes), None


def _classify_value(value: Any, column: Column) -> int:
    if type(value) not in (int, float):
        return _CLASS_BY_TYPE.get(type(value), OTHER)
    if value != value:
        return NULL
    is_whole = type(value) is int
    if is_whole and not column.kind.startswith("float"):
        if value in _RANGES.get(column.kind, _INT64):
            return WHOLE
        return UNSIGNED if value in _UINT64 else BIG
    if -_LARGEST_FLOAT32 <= value <= _LARGEST_FLOAT32:
        return FRACTION
    return BIG if is_whole else HUGE


def typed_series(values: list[Any], value_class: int, column: Column) -> Any:
    """Return values that all have this class, in the type that the column has in the frame of training."""
    import numpy as np
    import pandas as pd

    if value_class in (WHOLE, FRACTION):
        return np.array(values, dtype=_dtype(value_class, column))
    if value_class == NULL:
        return _nulls(len(values), column)
    if value_class == TEXT:
        try:
            return pd.array(values, dtype="str")
        except UnicodeError:
            # Arrow's strings hold no lone surrogates.
            return pd.Series(values, dtype=object)
    # The dtype is given, so that no value changes the type of the others.
    dtype = {TIME: "datetime64[us]", UNSIGNED: "uint64", BOOLEAN: "bool", HUGE: "float64"}.get(value_class, "object")
    return pd.Series(values, dtype=dtype)


def _dtype(value_class: int, column: Column) -> str:
    if value_class == FRACTION:
        return column.kind if column.kind.startswith("float") else "float64"
    return column.kind if column.is_whole else "int64"


def _nulls(count: int, column: Column) -> Any:
    """Return what pandas reads from the empty fields of a CSV file's column of that kind."""
    import numpy as np
    import pandas as pd

    if column.is_number:
        # pandas reads a column of whole numbers with an empty field as floats.
        return np.full(count, np.nan, dtype="float32" if column.kind == "float32" else "float64")
    if column.kind == "text":
        return pd.array([np.nan] * count, dtype="str")
    if column.kind == "datetime":
        return pd.Series([pd.NaT] * count, dtype="datetime64[us]")
    return pd.Series([np.nan] * count, dtype=object)
