"""topic_1's messages to records: JSON "split" in, one JSON object a payment out, every value byte for byte as it came.

A record is kept as its two halves around the prediction, so that nothing is parsed again to publish it:
`head + b"1" + tail` is the payment's object with `is_fraud` overwritten in its own place (or put last where the
payment has none), and `fraud_confirmed` null at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from include.payments.layout import Layout
from include.payments.refusal import Refusal
from include.payments.wrapping import is_flat, unwrapped


@dataclass(frozen=True, slots=True)
class Record:
    """One payment of a message; `row` is its place in the message's `data`, counted from 0."""

    row: int
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """`row` is None where the whole message is refused."""

    row: int | None
    refusal: Refusal


class _Split(msgspec.Struct, gc=False):
    columns: msgspec.Raw
    data: list[list[msgspec.Raw]]


class _LooseSplit(msgspec.Struct, gc=False):
    columns: msgspec.Raw
    data: list[msgspec.Raw]


_LAYOUTS_KEPT = 1_000
_LONGEST_LAYOUT_KEPT = 10_000
_NAMES_KEPT = 1_000
_LONGEST_NAME_KEPT = 100

# Each row of a message becomes a message with all of the columns' names and the key: without a bound, one message of a
# megabyte would become gigabytes. (Dead letters of rows are bounded where they are published.)
_MOST_ROWS = 10_000
_MOST_BYTES_IN_ALL = 100_000_000
# Deeper than any payment, and so shallow that every reader of the output can follow.
_DEEPEST = 200
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|([\[{])|([\]}])')


class Decoder:
    """Keeps what it learnt of the columns' order, which hardly ever changes, from message to message.

    `columns_seen` are the names that payments had, without what was refused; some are left out where
    `all_columns_known` is false.
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
        """At least one result a message: a record or a refusal for each row, or one refusal of the whole.

        `key_bytes`: the size of the message's key, which every row gets.
        """
        if not value:
            return [RefusedRow(None, Refusal("empty_value", "the message has no value"))]
        try:
            # msgspec passes over bytes that it does not decode; readers of the output could not.
            value.decode()
            split = self._split.decode(value)
        except UnicodeDecodeError:
            return [RefusedRow(None, Refusal("not_utf8", "the value is not UTF-8 text"))]
        except (msgspec.DecodeError, RecursionError):
            inner = unwrapped(value)
            return self._decode_loosely(value, key_bytes) if inner is None else self.decode(inner, key_bytes)
        layout = self._layout(bytes(split.columns))
        if isinstance(layout, Refusal):
            return [RefusedRow(None, layout)]
        if not split.data:
            return [RefusedRow(None, Refusal("no_rows", "`data` holds no payment"))]
        if (too_many := _too_many(split.columns, split.data, key_bytes)) is not None:
            return [RefusedRow(None, too_many)]
        results = [self._record(layout, row, values) for row, values in enumerate(split.data)]
        if len(value) >= 2 * _DEEPEST:
            results = [_shallow(result) for result in results]
        if not layout.learnt:
            self._learn(layout, results)
        return results

    def halves(self, value: bytes | None) -> tuple[bytes, bytes] | None:
        """Return the head and tail of a message with one payment in a known order of columns, or None for any other
        message: that is for `decode`. Nearly all messages are of this kind, and staging them column by column takes
        two thirds of the processor time (benchmarks/shortcuts.py)."""
        try:
            split = self._split.decode(value)  # type: ignore[arg-type]
            layout = self._layouts[bytes(split.columns)]
            (values,) = split.data
            if not value.isascii():  # type: ignore[union-attr]
                value.decode()  # type: ignore[union-attr]
        except (msgspec.DecodeError, RecursionError, KeyError, ValueError, TypeError):
            return None
        if isinstance(layout, Refusal) or not layout.learnt or len(values) != len(layout.names):
            return None
        if value.count(b"[") + value.count(b"{") > _DEEPEST:  # type: ignore[union-attr]
            return None
        return layout.head.join(values), layout.tail.join(values)

    def _record(self, layout: Layout, row: int, values: list[msgspec.Raw]) -> Record | RefusedRow:
        if len(values) != len(layout.names):
            sentence = f"the row has {len(values)} values for {len(layout.names)} columns"
            return RefusedRow(row, Refusal("row_length", sentence))
        return Record(row, layout.head.join(values), layout.tail.join(values))

    def _decode_loosely(self, value: bytes, key_bytes: int) -> list[Record | RefusedRow]:
        """Says what is wrong with a message that is not clean, and saves the rows that are."""
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
        if not flat and (too_many := _too_many(split.columns, split.data, key_bytes)) is not None:
            return [RefusedRow(None, too_many)]
        results: list[Record | RefusedRow] = []
        rows: list[Any] = [split.data] if flat else split.data
        for row, values in enumerate(rows):
            try:
                results.append(_shallow(self._record(layout, row, values if flat else self._rows.decode(values))))
            except msgspec.DecodeError:
                results.append(RefusedRow(row, Refusal("row_not_list", "the row is not a list of values")))
        if not layout.learnt:
            self._learn(layout, results)
        return results

    def _learn(self, layout: Layout, results: list[Record | RefusedRow]) -> None:
        if not any(isinstance(result, Record) for result in results):
            return
        layout.learnt = True
        # They go into the manifest, which has to stay small whatever is sent.
        new = {name for name in layout.names if len(name) <= _LONGEST_NAME_KEPT} - self.columns_seen
        if len(self.columns_seen) + len(new) <= _NAMES_KEPT:
            self.columns_seen |= new
        self.all_columns_known &= self.columns_seen.issuperset(layout.names)

    def _layout(self, columns: bytes) -> Layout | Refusal:
        layout = self._layouts.get(columns)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            layout = self._new_layout(columns)
            if len(columns) <= _LONGEST_LAYOUT_KEPT:
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


def _too_many(
    columns: msgspec.Raw, rows: list[list[msgspec.Raw]] | list[msgspec.Raw], key_bytes: int
) -> Refusal | None:
    each = memoryview(columns).nbytes + key_bytes
    if len(rows) <= _MOST_ROWS and len(rows) * each <= _MOST_BYTES_IN_ALL:
        return None
    return Refusal("too_many_rows", f"the message holds {len(rows)} rows, more than can become messages of their own")


def _shallow(result: Record | RefusedRow) -> Record | RefusedRow:
    if isinstance(result, RefusedRow):
        return result
    for part in (result.head, result.tail):
        if part.count(b"[") + part.count(b"{") > _DEEPEST and _depth(part) > _DEEPEST:
            return RefusedRow(
                result.row, Refusal("nested_too_deep", f"a value is nested deeper than {_DEEPEST} levels")
            )
    return result


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for found in _BRACKET.finditer(text):
        depth += (found[1] is not None) - (found[2] is not None)
        deepest = max(deepest, depth)
    return deepest
