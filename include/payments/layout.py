"""Join the values of a row to a record, for one order of a message's columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from include.payments.columns import FRAUD_CONFIRMED, PREDICTION

_END = b',"' + FRAUD_CONFIRMED.encode() + b'":null}'


@dataclass(slots=True)
class Layout:
    """The templates of a record's head and tail for one order of columns (see include/payments/decode.py).

    `is_known` is True once a payment with this order was decoded.
    """

    names: tuple[str, ...]
    head: RowTemplate
    tail: RowTemplate
    is_known: bool = False

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Layout:
        """Return the layout for rows whose columns have these names, each once, in this order."""
        prediction = names.index(PREDICTION) if PREDICTION in names else len(names)
        kept = [index for index, name in enumerate(names) if name not in (PREDICTION, FRAUD_CONFIRMED)]
        head, tail = [index for index in kept if index < prediction], [index for index in kept if index > prediction]
        labels = [b"," + msgspec.json.encode(names[index]) + b":" for index in [*head, *tail]]
        head_texts = [*labels[: len(head)], b"," + msgspec.json.encode(PREDICTION) + b":"]
        head_texts[0] = b"{" + head_texts[0][1:]
        return cls(names, RowTemplate(head, head_texts), RowTemplate(tail, [*labels[len(head) :], _END]))


class RowTemplate:
    """Fixed texts with some of a row's values between them: one text more than values."""

    __slots__ = ("_indices", "_parts", "_select")

    def __init__(self, indices: list[int], texts: list[bytes]) -> None:
        self._parts: list[Any] = [b""] * (2 * len(indices) + 1)
        self._parts[::2] = texts
        # With one index, an itemgetter returns the value itself instead of a tuple.
        self._select: Callable[[list[msgspec.Raw]], Any] | None = itemgetter(*indices) if len(indices) > 1 else None
        self._indices = indices

    def join(self, values: list[msgspec.Raw]) -> bytes:
        """Return the texts joined with the values of a row."""
        if not self._indices:
            text: bytes = self._parts[0]
            return text
        parts = self._parts.copy()
        parts[1::2] = self._select(values) if self._select else [values[index] for index in self._indices]
        return b"".join(parts)
