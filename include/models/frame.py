"""Payments to the frames that a model takes, whole columns at a time.

Payments whose values are of the same types go into one frame, so that each column has the type it would have in a
frame of that payment alone: one card number sent as text does not turn everybody's into text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.coerce import coerce
from include.models.column import CURRENT_TIME, DERIVED, Column
from include.payments.refusal import Refusal
from include.payments.timestamps import moment_of, time_text, unix_time

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

NUMBER, TEXT, NULL, BOOLEAN, HUGE, BIG, OTHER, MISSING = range(8)
WORDS = ("a number", "text", "null", "true or false", "a number too large", "a number too large", "another value", "")
_CLASSES = {int: NUMBER, float: NUMBER, str: TEXT, type(None): NULL, bool: BOOLEAN, msgspec.UnsetType: MISSING}
_LARGEST_FLOAT32 = 3.4028234663852886e38
_INT64 = range(-(2**63), 2**63)
_EXACT_TYPES = ("int32", "int64", "float32", "float64")


@dataclass(frozen=True)
class Group:
    """Payments (by their place) of one pattern; `classes` says of each taken column what it holds in this frame."""

    rows: npt.NDArray[np.intp]
    frame: pd.DataFrame
    classes: dict[str, int]

    @property
    def missing(self) -> list[str]:
        return [name for name, kind in self.classes.items() if kind == MISSING]


@dataclass(frozen=True)
class Frames:
    """Largest group first; those that lack a column last. `refused` by place."""

    groups: list[Group]
    refused: dict[int, Refusal]


class FrameBuilder:
    """`exact` passes values on as they came, for models whose columns' types nobody enforces; else they are coerced."""

    def __init__(self, takes: Sequence[Column], *, exact: bool) -> None:
        self._takes = tuple(takes)
        self._exact = exact
        names = [column.name for column in takes]
        derives = [name for name in DERIVED if name in names]
        self._derived = [(names.index(name), DERIVATIONS[name]) for name in derives]
        if derives and CURRENT_TIME not in names:
            names.append(CURRENT_TIME)
        self._reader = _Reader(names)
        self._names = names

    def build(self, payments: Sequence[bytes]) -> Frames:
        columns, refused = self._reader.read(payments)
        self._derive(columns)
        columns = columns[: len(self._takes)]
        if not self._exact:
            for place, column in enumerate(self._takes):
                columns[place], bad = coerce(columns[place], column.kind)
                for row in bad:
                    refused.setdefault(row, Refusal("bad_value", f"{column.name}: {column.expects} expected"))
        return Frames(list(self._groups(columns, len(payments), refused)), refused)

    def _derive(self, columns: list[list[Any]]) -> None:
        if not self._derived:
            return
        times = columns[self._names.index(CURRENT_TIME)]
        for place, derivation in self._derived:
            column = columns[place]
            if msgspec.UNSET in column:
                columns[place] = [
                    derivation(time) if value is msgspec.UNSET and time is not msgspec.UNSET else value
                    for value, time in zip(column, times, strict=True)
                ]

    def _groups(self, columns: list[list[Any]], count: int, refused: dict[int, Refusal]) -> Iterator[Group]:
        import numpy as np

        classified = [_classify(column) for column in columns]
        codes = [code for code, _ in classified]
        pattern = np.zeros(count, dtype=np.int64)
        for code in codes:
            if not isinstance(code, int):
                # Made small again after each column, so that any number of columns fits.
                pattern = np.unique(pattern * len(WORDS) + code, return_inverse=True)[1]
        pattern[list(refused)] = -1
        found = [np.flatnonzero(pattern == value) for value in np.unique(pattern[pattern >= 0])]
        groups = []
        for rows in found:
            whole = len(rows) == count
            pick = None if whole else (itemgetter(*rows) if len(rows) > 1 else itemgetter(rows[0], rows[0]))
            classes, data = {}, {}
            for column, (code, numbers), values in zip(self._takes, classified, columns, strict=True):
                kind = code if isinstance(code, int) else int(code[rows[0]])
                classes[column.name] = kind
                if kind == MISSING:
                    continue
                if numbers is not None and self._exact:
                    data[column.name] = numbers if pick is None else numbers[rows]
                    continue
                picked = values if pick is None else list(pick(values)[: len(rows)])
                data[column.name] = _series(picked, kind, "" if self._exact else column.kind)
            groups.append(Group(rows, _frame(data, len(rows)), classes))
        yield from sorted(groups, key=lambda group: (bool(group.missing), -len(group.rows)))


class _Reader:
    """Only the fields that are needed become Python objects; msgspec passes over the rest."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        fields = [(f"f{place}", Any, msgspec.UNSET) for place in range(len(names))]
        rename = {f"f{place}": name for place, name in enumerate(names)}
        self._getters = [attrgetter(name) for name, _, _ in fields]
        try:
            struct: Any = msgspec.defstruct("Payment", fields, rename=rename, gc=False)
        except ValueError:
            # A name with a quotation mark or the like, which msgspec does not take.
            self._decode = None
        else:
            self._decode = msgspec.json.Decoder(struct).decode

    def read(self, payments: Sequence[bytes]) -> tuple[list[list[Any]], dict[int, Refusal]]:
        """A list of values a column, `msgspec.UNSET` where a payment has none."""
        if self._decode is not None:
            try:
                # Not joined into one list to decode: copying the bytes costs as much as decoding them.
                found = list(map(self._decode, payments))
            except (ValueError, RecursionError):
                pass
            else:
                return [list(map(getter, found)) for getter in self._getters], {}
        refused: dict[int, Refusal] = {}
        rows = [self._read_one(payment, place, refused) for place, payment in enumerate(payments)]
        return [list(column) for column in zip(*rows, strict=True)], refused

    def _read_one(self, payment: bytes, place: int, refused: dict[int, Refusal]) -> tuple[Any, ...]:
        if self._decode is not None:
            try:
                found = self._decode(payment)
                return tuple(getter(found) for getter in self._getters)
            except (ValueError, RecursionError):
                pass
        try:
            # The standard library reads what msgspec does not: numbers past a float's range, lone surrogates.
            content = json.loads(payment)
            return tuple(content.get(name, msgspec.UNSET) for name in self._names)
        except (ValueError, RecursionError, AttributeError):
            refused[place] = Refusal("bad_value", "the payment's values cannot be read")
            return (msgspec.UNSET,) * len(self._names)


def _time_text(current_time: Any) -> Any:
    moment = moment_of(current_time)
    return msgspec.UNSET if moment is None else time_text(moment)


def _time_number(current_time: Any) -> Any:
    moment = moment_of(current_time)
    return msgspec.UNSET if moment is None else unix_time(moment)


DERIVATIONS: dict[str, Callable[[Any], Any]] = {"trans_date_trans_time": _time_text, "unix_time": _time_number}


def _classify(column: list[Any]) -> tuple[int | npt.NDArray[np.int64], npt.NDArray[Any] | None]:
    """One class for all where that is so, which is the common case and the quick one; numbers at once as an array."""
    import numpy as np

    types = set(map(type, column))
    if types and types <= {int, float}:
        try:
            numbers = np.fromiter(column, np.int64 if types == {int} else np.float64, len(column))
        except OverflowError:
            pass
        else:
            if np.abs(numbers).max() < float(2**63):
                # A group of a mixed column may be of whole numbers only, and then has their type.
                return NUMBER, numbers if len(types) == 1 else None
    elif len(types) == 1:
        return _CLASSES.get(types.pop(), OTHER), None
    codes = np.fromiter(map(_class_of, column), dtype=np.int64, count=len(column))
    return (int(codes[0]) if len(codes) and (codes == codes[0]).all() else codes), None


def _class_of(value: Any) -> int:
    kind = _CLASSES.get(type(value), OTHER)
    if kind == NUMBER:
        if type(value) is int:
            return NUMBER if value in _INT64 else BIG
        return NUMBER if -_LARGEST_FLOAT32 <= value <= _LARGEST_FLOAT32 else HUGE
    return kind


def _series(values: list[Any], kind: int, exact_type: str) -> Any:
    import numpy as np
    import pandas as pd

    if exact_type in _EXACT_TYPES and kind in (NUMBER, HUGE):
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64 if exact_type == "float32" else exact_type).astype(exact_type)
    if kind == NULL and exact_type.startswith("float"):
        return np.full(len(values), np.nan, dtype=exact_type)
    if kind == NUMBER:
        return np.array(values, dtype=np.int64 if set(map(type, values)) == {int} else np.float64)
    if kind == TEXT:
        try:
            return pd.array(values, dtype="str")
        except UnicodeError:
            return pd.Series(values, dtype=object)
    return pd.Series(values, dtype=object) if kind == NULL else pd.Series(values)


def _frame(data: dict[str, Any], count: int) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(data, index=pd.RangeIndex(count), copy=False)
