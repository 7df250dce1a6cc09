"""Decode messages of the input topic, JSON in "split" form, to one record for each payment.

A record is the payment's JSON object in two halves around the prediction, so that publishing it needs no parsing:
`head + b"1" + tail` has the prediction in the place of `is_fraud`, or last if the payment has no such column, and
`fraud_confirmed` null at the end. All other values keep their bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from include.payments.layout import Layout
from include.payments.refusal import Refusal
from include.payments.wrapping import is_flat, unwrap


@dataclass(frozen=True, slots=True)
class Record:
    """One payment of a message; `row` is its index in the message's `data`."""

    row: int
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that cannot be scored; `row` is None if the whole message is refused."""

    row: int | None
    refusal: Refusal


class _Split(msgspec.Struct, gc=False):
    columns: msgspec.Raw
    data: list[list[msgspec.Raw]]


class _LooseSplit(msgspec.Struct, gc=False):
    columns: msgspec.Raw
    data: list[msgspec.Raw]


_MAX_LAYOUTS = 1_000
_MAX_LAYOUT_BYTES = 10_000
_MAX_NAMES = 1_000
_MAX_NAME_LENGTH = 100

# Each row becomes a message with all column names and the key: without a limit, one message of a megabyte would become
# gigabytes. Dead letters of rows have their own limit where they are published.
_MAX_ROWS = 10_000
_MAX_EXPANDED_BYTES = 100_000_000
# Deeper than any payment, and shallow enough for all JSON readers of the output.
_MAX_DEPTH = 200
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|([\[{])|([\]}])')


class Decoder:
    """Decode messages, and cache the layouts of their columns, whose order rarely changes.

    `columns_seen` has the column names of all decoded payments. If some were too many or too long to keep,
    `all_columns_known` is False.
    """

    def __init__(self) -> None:
        self._split = msgspec.json.Decoder(_Split)
        self._loose = msgspec.json.Decoder(_LooseSplit)
        self._rows = msgspec.json.Decoder(list[msgspec.Raw])
        self._names = msgspec.json.Decoder(list[str])
        self._layouts: dict[bytes, Layout | Refusal] = {}
        self.columns_seen: set[str] = set()
        self.all_columns_known = True

    def decode(self, value: bytes | None, key_bytes: int = 0) -> list[Record | RefusedRow]:
        """Return a record or a refusal for each row, or one refusal of the whole message. The list is never empty.

        `key_bytes` is the size of the message's key, which each row's message repeats.
        """
        if not value:
            return [RefusedRow(None, Refusal("empty_value", "the message has no value"))]
        try:
            # msgspec does not check the UTF-8 of raw values, but readers of the output would fail.
            value.decode()
            split = self._split.decode(value)
        except UnicodeDecodeError:
            return [RefusedRow(None, Refusal("not_utf8", "the value is not UTF-8 text"))]
        except (msgspec.DecodeError, RecursionError):
            inner = unwrap(value)
            return self._decode_loosely(value, key_bytes) if inner is None else self.decode(inner, key_bytes)
        layout = self._layout(bytes(split.columns))
        if isinstance(layout, Refusal):
            return [RefusedRow(None, layout)]
        if not split.data:
            return [RefusedRow(None, Refusal("no_rows", "`data` holds no payment"))]
        if (refusal := _refuse_if_too_many(split.columns, split.data, key_bytes)) is not None:
            return [RefusedRow(None, refusal)]
        results = [self._record(layout, row, values) for row, values in enumerate(split.data)]
        if len(value) >= 2 * _MAX_DEPTH:
            results = [_refuse_if_deep(result) for result in results]
        if not layout.is_known:
            self._remember_columns(layout, results)
        return results

    def halves(self, value: bytes | None) -> tuple[bytes, bytes] | None:
        """Return the head and tail of a message with one payment and a known order of columns.

        Return None for any other message, which `decode` decodes. Nearly all messages are of this kind, and to stage
        them column by column takes two thirds of the CPU time (benchmarks/shortcuts.py).
        """
        try:
            split = self._split.decode(value)  # type: ignore[arg-type]
            layout = self._layouts[bytes(split.columns)]
            (values,) = split.data
            if not value.isascii():  # type: ignore[union-attr]
                value.decode()  # type: ignore[union-attr]
        except (msgspec.DecodeError, RecursionError, KeyError, ValueError, TypeError):
            return None
        if isinstance(layout, Refusal) or not layout.is_known or len(values) != len(layout.names):
            return None
        if value.count(b"[") + value.count(b"{") > _MAX_DEPTH:  # type: ignore[union-attr]
            return None
        return layout.head.join(values), layout.tail.join(values)

    def _record(self, layout: Layout, row: int, values: list[msgspec.Raw]) -> Record | RefusedRow:
        if len(values) != len(layout.names):
            sentence = f"the row has {len(values)} values for {len(layout.names)} columns"
            return RefusedRow(row, Refusal("row_length", sentence))
        return Record(row, layout.head.join(values), layout.tail.join(values))

    def _decode_loosely(self, value: bytes, key_bytes: int) -> list[Record | RefusedRow]:
        """Decode a message row by row, after it failed as a whole, and refuse the invalid rows only."""
        try:
            split = self._loose.decode(value)
        except msgspec.ValidationError:
            sentence = 'the value is JSON, but not in "split" form with `columns` and `data`'
            return [RefusedRow(None, Refusal("not_split", sentence))]
        except (msgspec.DecodeError, RecursionError):
            sentence = "the value is not valid JSON, or holds half of a surrogate pair, or is nested too deep to read"
            return [RefusedRow(None, Refusal("not_json", sentence))]
        layout = self._layout(bytes(split.columns))
        if isinstance(layout, Refusal):
            return [RefusedRow(None, layout)]
        flat = is_flat(split.data)
        if not flat and (refusal := _refuse_if_too_many(split.columns, split.data, key_bytes)) is not None:
            return [RefusedRow(None, refusal)]
        results: list[Record | RefusedRow] = []
        rows: list[Any] = [split.data] if flat else split.data
        for row, values in enumerate(rows):
            try:
                row_values = values if flat else self._rows.decode(values)
                results.append(_refuse_if_deep(self._record(layout, row, row_values)))
            except msgspec.DecodeError:
                results.append(RefusedRow(row, Refusal("row_not_list", "the row is not a list of values")))
        if not layout.is_known:
            self._remember_columns(layout, results)
        return results

    def _remember_columns(self, layout: Layout, results: list[Record | RefusedRow]) -> None:
        if not any(isinstance(result, Record) for result in results):
            return
        layout.is_known = True
        # The manifest stores these names, and must stay small whatever producers send.
        new = {name for name in layout.names if len(name) <= _MAX_NAME_LENGTH} - self.columns_seen
        if len(self.columns_seen) + len(new) <= _MAX_NAMES:
            self.columns_seen |= new
        self.all_columns_known &= self.columns_seen.issuperset(layout.names)

    def _layout(self, columns: bytes) -> Layout | Refusal:
        layout = self._layouts.get(columns)
        if layout is None:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._new_layout(columns)
            if len(columns) <= _MAX_LAYOUT_BYTES:
                self._layouts[columns] = layout
        return layout

    def _new_layout(self, columns: bytes) -> Layout | Refusal:
        try:
            names = tuple(self._names.decode(columns))
        except msgspec.DecodeError:
            return Refusal("not_split", "`columns` is not a list of names")
        if len(set(names)) != len(names):
            return Refusal("duplicate_column", "`columns` names a column twice")
        return Layout.of(names)


def _refuse_if_too_many(
    columns: msgspec.Raw, rows: list[list[msgspec.Raw]] | list[msgspec.Raw], key_bytes: int
) -> Refusal | None:
    row_bytes = memoryview(columns).nbytes + key_bytes
    if len(rows) <= _MAX_ROWS and len(rows) * row_bytes <= _MAX_EXPANDED_BYTES:
        return None
    return Refusal("too_many_rows", f"the message holds {len(rows)} rows, more than can become messages of their own")


def _refuse_if_deep(result: Record | RefusedRow) -> Record | RefusedRow:
    if isinstance(result, RefusedRow):
        return result
    for part in (result.head, result.tail):
        if part.count(b"[") + part.count(b"{") > _MAX_DEPTH and _depth(part) > _MAX_DEPTH:
            return RefusedRow(
                result.row, Refusal("nested_too_deep", f"a value is nested deeper than {_MAX_DEPTH} levels")
            )
    return result


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for found in _BRACKET.finditer(text):
        depth += (found[1] is not None) - (found[2] is not None)
        deepest = max(deepest, depth)
    return deepest
