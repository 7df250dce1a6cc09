"""Payments to the frames that a model takes, whole columns at a time.

Each column has the type that it has in the frame that the model was trained on: from the signature, else from the
contract of payments, else from the payment's own value. Payments of the same types share a frame; a payment's frame
holds the same values whichever payments are scored with it. JSON null is what an empty field of a CSV file is: NaN.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.coerce import coerce, fits
from include.models.column import CURRENT_TIME, DERIVED, Column
from include.models.series import BIG, CLASS_COUNT, MISSING, NULL, UNSIGNED, classify, typed_series
from include.payments.refusal import Refusal
from include.payments.timestamps import date_time_text, moment_of, unix_time

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from include.models.series import ColumnClasses


@dataclass(frozen=True)
class PaymentGroup:
    """Payments (by their place) of one pattern.

    `classes` says of each taken column what it holds in this frame. `untyped_nulls` are columns of nulls whose type
    nothing says: neither a signature nor the contract of payments.
    """

    rows: npt.NDArray[np.intp]
    frame: pd.DataFrame
    classes: dict[str, int]
    untyped_nulls: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [name for name, kind in self.classes.items() if kind == MISSING]

    def with_nulls_as_numbers(self) -> PaymentGroup:
        """Return the group with the nulls of untyped columns as numbers, as in a CSV file's empty column."""
        return replace(self, frame=self.frame.astype(dict.fromkeys(self.untyped_nulls, "float64")), untyped_nulls=())


@dataclass(frozen=True)
class Frames:
    """Largest group first; those that lack a column last. `refused` by place."""

    groups: list[PaymentGroup]
    refused: dict[int, Refusal]


class FrameBuilder:
    """Make frames of the columns that a model takes.

    `strict` refuses a payment with a value that cannot be of its column's type, as MLflow does where it enforces a
    signature. Otherwise the value goes to the model as it came, and the model decides.
    """

    def __init__(self, takes: Sequence[Column], *, strict: bool) -> None:
        self._takes = tuple(takes)
        self._strict = strict
        names = [column.name for column in takes]
        derives = [name for name in DERIVED if name in names]
        self._derived = [(names.index(name), DERIVATIONS[name]) for name in derives]
        if derives and CURRENT_TIME not in names:
            names.append(CURRENT_TIME)
        self._reader = _RowReader(names)
        self._names = names

    def build(self, payments: Sequence[bytes]) -> Frames:
        columns, refused = self._reader.read(payments)
        self._derive(columns)
        columns = columns[: len(self._takes)]
        classified = []
        for place, column in enumerate(self._takes):
            values = columns[place]
            bad: list[int] = []
            types = set(map(type, values))
            if not fits(types, column):
                values, bad = coerce(values, column)
                columns[place], types = values, set(map(type, values))
            classes, numbers = classify(values, types, column)
            classified.append((classes, numbers))
            if self._strict:
                too_large = (UNSIGNED, BIG) if numbers is None and column.is_whole else ()
                for row in [*bad, *(row for kind in too_large for row in _rows_of(kind, classes, len(values)))]:
                    refused.setdefault(row, Refusal("bad_value", f"{column.name}: {column.expects} expected"))
        return Frames(list(self._groups(columns, classified, refused)), refused)

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

    def _groups(
        self, columns: list[list[Any]], classified: list[ColumnClasses], refused: dict[int, Refusal]
    ) -> Iterator[PaymentGroup]:
        import numpy as np

        count = len(columns[0]) if columns else 0
        codes = [code for code, _ in classified]
        pattern = np.zeros(count, dtype=np.int64)
        for code in codes:
            if not isinstance(code, int):
                # Made small again after each column, so that any number of columns fits.
                pattern = np.unique(pattern * CLASS_COUNT + code, return_inverse=True)[1]
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
                if numbers is not None:
                    data[column.name] = numbers if pick is None else numbers[rows]
                    continue
                picked = values if pick is None else list(pick(values)[: len(rows)])
                data[column.name] = typed_series(picked, kind, column)
            untyped = [each.name for each in self._takes if each.kind == "any" and classes[each.name] == NULL]
            groups.append(PaymentGroup(rows, _frame(data, len(rows)), classes, tuple(untyped)))
        yield from sorted(groups, key=lambda group: (bool(group.missing), -len(group.rows)))


class _RowReader:
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


def _rows_of(kind: int, classes: int | npt.NDArray[np.int64], count: int) -> Iterable[int]:
    if isinstance(classes, int):
        return range(count) if classes == kind else ()
    return [int(row) for row in (classes == kind).nonzero()[0]]


def _time_text(current_time: Any) -> Any:
    moment = moment_of(current_time)
    return msgspec.UNSET if moment is None else date_time_text(moment)


def _time_number(current_time: Any) -> Any:
    moment = moment_of(current_time)
    return msgspec.UNSET if moment is None else unix_time(moment)


DERIVATIONS: dict[str, Callable[[Any], Any]] = {"trans_date_trans_time": _time_text, "unix_time": _time_number}


def _frame(data: dict[str, Any], count: int) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(data, index=pd.RangeIndex(count), copy=False)
