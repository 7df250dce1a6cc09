"""Build the frames that a model takes from payments, whole columns at a time.

Each column has the type that it has in the training frame: from the signature, else from the contract of payments, else
from the payment's own value. Payments with the same types share a frame, and a payment's row does not depend on the
other payments. JSON null becomes NaN, as an empty field of a CSV file does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from include.models.coerce import coerce, matches_kind
from include.models.column import CURRENT_TIME, DERIVED_COLUMNS, Column
from include.models.series import BIG, CLASS_COUNT, MISSING, NULL, UNSIGNED, classify, typed_series
from include.payments.refusal import Refusal
from include.payments.timestamps import date_time_text, parse_unix_time, unix_time

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from include.models.series import ColumnClasses


@dataclass(frozen=True)
class PaymentGroup:
    """Payments whose values have the same class in each column.

    `rows` are their indices among all payments, in the order of the rows of `frame`. `classes` maps each input column
    to the class of its values. `untyped_nulls` are the columns of nulls whose type neither a signature nor the contract
    of payments gives.
    """

    rows: npt.NDArray[np.intp]
    frame: pd.DataFrame
    classes: dict[str, int]
    untyped_nulls: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Return the input columns that these payments lack."""
        return [name for name, value_class in self.classes.items() if value_class == MISSING]

    def with_nulls_as_numbers(self) -> PaymentGroup:
        """Return the group with float64 for its untyped columns of nulls, as pandas reads empty columns of a CSV."""
        return replace(self, frame=self.frame.astype(dict.fromkeys(self.untyped_nulls, "float64")), untyped_nulls=())


@dataclass(frozen=True)
class Frames:
    """The groups of some payments: the largest first, and those that lack a column last.

    `refusals` are those of payments without a group, by their index.
    """

    groups: list[PaymentGroup]
    refusals: dict[int, Refusal]


class FrameBuilder:
    """Build frames of a model's input columns.

    `strict` refuses a payment with a value that cannot be converted to its column's type, as MLflow does where it
    enforces a signature. Otherwise the model gets the value unchanged and decides.
    """

    def __init__(self, input_columns: Sequence[Column], *, strict: bool) -> None:
        self._input_columns = tuple(input_columns)
        self._strict = strict
        names = [column.name for column in input_columns]
        derived = [name for name in DERIVED_COLUMNS if name in names]
        self._derivations = [(names.index(name), DERIVATIONS[name]) for name in derived]
        if derived and CURRENT_TIME not in names:
            names.append(CURRENT_TIME)
        self._reader = _FieldReader(names)
        self._names = names

    def build(self, payments: Sequence[bytes]) -> Frames:
        """Return the frames of payments, each given as the bytes of a JSON object."""
        columns, refusals = self._reader.read(payments)
        self._derive(columns)
        columns = columns[: len(self._input_columns)]
        classified = []
        for index, column in enumerate(self._input_columns):
            values = columns[index]
            bad_rows: list[int] = []
            types = set(map(type, values))
            if not matches_kind(types, column):
                values, bad_rows = coerce(values, column)
                columns[index], types = values, set(map(type, values))
            classes, numbers = classify(values, types, column)
            classified.append((classes, numbers))
            if self._strict:
                if numbers is None and column.is_whole:
                    for too_large in (UNSIGNED, BIG):
                        bad_rows += _rows_of_class(too_large, classes, len(values))
                for row in bad_rows:
                    refusals.setdefault(row, Refusal("bad_value", f"{column.name}: {column.kind_text} expected"))
        return Frames(self._groups(columns, classified, refusals), refusals)

    def _derive(self, columns: list[list[Any]]) -> None:
        if not self._derivations:
            return
        times = columns[self._names.index(CURRENT_TIME)]
        for index, derivation in self._derivations:
            column = columns[index]
            if msgspec.UNSET in column:
                columns[index] = [
                    derivation(time) if value is msgspec.UNSET and time is not msgspec.UNSET else value
                    for value, time in zip(column, times, strict=True)
                ]

    def _groups(
        self, columns: list[list[Any]], classified: list[ColumnClasses], refusals: dict[int, Refusal]
    ) -> list[PaymentGroup]:
        import numpy as np

        count = len(columns[0]) if columns else 0
        # A number for each payment, the same for payments whose values have the same classes.
        patterns = np.zeros(count, dtype=np.int64)
        for classes, _ in classified:
            if not isinstance(classes, int):
                # `unique` renumbers the patterns after each column, so that no number of columns overflows.
                patterns = np.unique(patterns * CLASS_COUNT + classes, return_inverse=True)[1]
        patterns[list(refusals)] = -1
        groups = []
        for pattern in np.unique(patterns[patterns >= 0]):
            rows = np.flatnonzero(patterns == pattern)
            # itemgetter returns a tuple only for two or more indices, so the first row is picked twice.
            pick = None if len(rows) == count else itemgetter(*rows, rows[0])
            classes_by_name, data = {}, {}
            for column, (classes, numbers), values in zip(self._input_columns, classified, columns, strict=True):
                value_class = classes if isinstance(classes, int) else int(classes[rows[0]])
                classes_by_name[column.name] = value_class
                if value_class == MISSING:
                    continue
                if numbers is not None:
                    data[column.name] = numbers if pick is None else numbers[rows]
                    continue
                picked = values if pick is None else list(pick(values)[: len(rows)])
                data[column.name] = typed_series(picked, value_class, column)
            untyped_nulls = tuple(
                column.name
                for column in self._input_columns
                if column.kind == "any" and classes_by_name[column.name] == NULL
            )
            groups.append(PaymentGroup(rows, _frame(data, len(rows)), classes_by_name, untyped_nulls))
        return sorted(groups, key=lambda group: (bool(group.missing), -len(group.rows)))


class _FieldReader:
    """Read the named fields of payments; msgspec creates no Python objects for the other fields."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        fields = [(f"f{index}", Any, msgspec.UNSET) for index in range(len(names))]
        rename = {f"f{index}": name for index, name in enumerate(names)}
        self._getters = [attrgetter(name) for name, _, _ in fields]
        try:
            struct: Any = msgspec.defstruct("Payment", fields, rename=rename, gc=False)
        except ValueError:
            # msgspec rejects some names, such as one with a quotation mark.
            self._decode = None
        else:
            self._decode = msgspec.json.Decoder(struct).decode

    def read(self, payments: Sequence[bytes]) -> tuple[list[list[Any]], dict[int, Refusal]]:
        """Return a list of values for each field, `msgspec.UNSET` where a payment lacks it, and refusals by index."""
        if self._decode is not None:
            try:
                # Joining the payments into one list to decode would cost as much as decoding them: it copies the bytes.
                decoded = list(map(self._decode, payments))
            except (ValueError, RecursionError):
                pass
            else:
                return [list(map(getter, decoded)) for getter in self._getters], {}
        refusals: dict[int, Refusal] = {}
        rows = [self._read_one(payment, index, refusals) for index, payment in enumerate(payments)]
        return [list(column) for column in zip(*rows, strict=True)], refusals

    def _read_one(self, payment: bytes, index: int, refusals: dict[int, Refusal]) -> tuple[Any, ...]:
        if self._decode is not None:
            try:
                decoded = self._decode(payment)
                return tuple(getter(decoded) for getter in self._getters)
            except (ValueError, RecursionError):
                pass
        try:
            # The standard library reads what msgspec rejects: numbers beyond a float's range, lone surrogates.
            content = json.loads(payment)
            return tuple(content.get(name, msgspec.UNSET) for name in self._names)
        except (ValueError, RecursionError, AttributeError):
            refusals[index] = Refusal("bad_value", "the payment's values cannot be read")
            return (msgspec.UNSET,) * len(self._names)


def _rows_of_class(value_class: int, classes: int | npt.NDArray[np.int64], count: int) -> Iterable[int]:
    if isinstance(classes, int):
        return range(count) if classes == value_class else ()
    return [int(row) for row in (classes == value_class).nonzero()[0]]


def _time_text(current_time: Any) -> Any:
    moment = parse_unix_time(current_time)
    return msgspec.UNSET if moment is None else date_time_text(moment)


def _time_number(current_time: Any) -> Any:
    moment = parse_unix_time(current_time)
    return msgspec.UNSET if moment is None else unix_time(moment)


# Functions from a payment's current_time to the value of a derived column, UNSET if current_time is not a time.
DERIVATIONS: dict[str, Callable[[Any], Any]] = {"trans_date_trans_time": _time_text, "unix_time": _time_number}


def _frame(data: dict[str, Any], count: int) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(data, index=pd.RangeIndex(count), copy=False)
