"""The order of a message's columns, and how the values of a row join into a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from include.payments.columns import CONFIRMED, PREDICTION

_END = b',"' + CONFIRMED.encode() + b'":null}'


@dataclass(slots=True)
class Layout:
    """How the values of a row join into a record, for one order of columns; `learnt` once a payment came in it."""

    names: tuple[str, ...]
    head: RowTemplate
    tail: RowTemplate
    learnt: bool = False

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Layout:
        """Return the layout for rows whose columns have these names, each once, in this order."""
        at = names.index(PREDICTION) if PREDICTION in names else len(names)
        kept = [place for place, name in enumerate(names) if name not in (PREDICTION, CONFIRMED)]
        head, tail = [place for place in kept if place < at], [place for place in kept if place > at]
        labels = [b"," + msgspec.json.encode(names[place]) + b":" for place in [*head, *tail]]
        before_head = [*labels[: len(head)], b"," + msgspec.json.encode(PREDICTION) + b":"]
        before_head[0] = b"{" + before_head[0][1:]
        return cls(names, RowTemplate(head, before_head), RowTemplate(tail, [*labels[len(head) :], _END]))


class RowTemplate:
    """Some of a row's values in turns with fixed text, of which there is one more."""

    __slots__ = ("_pick", "_places", "_text")

    def __init__(self, places: list[int], text: list[bytes]) -> None:
        self._text: list[Any] = [b""] * (2 * len(places) + 1)
        self._text[::2] = text
        # Of one place an itemgetter gives the value itself and no tuple of it.
        self._pick: Callable[[list[msgspec.Raw]], Any] | None = itemgetter(*places) if len(places) > 1 else None
        self._places = places

    def join(self, values: list[msgspec.Raw]) -> bytes:
        if not self._places:
            constant: bytes = self._text[0]
            return constant
        parts = self._text.copy()
        parts[1::2] = self._pick(values) if self._pick else [values[place] for place in self._places]
        return b"".join(parts)
