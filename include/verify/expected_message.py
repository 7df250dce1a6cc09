"""What a message must become, by the contract in docs/messages.md and nothing of the code that scores.

Values are read by the standard library's JSON, with each number kept as the text it was written in: 1.0 is not 1.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from operator import methodcaller
from typing import Any

from confluent_kafka import Message

Headers = list[tuple[str, bytes | None]]
Pairs = list[tuple[str, Any]]

_REASON = re.compile(rb"[a-z][a-z0-9_]*: .")
_SOURCE = re.compile(rb"(.+)/(\d+)/(\d+)")
# See the scoring's own reading of headers: a name that is not UTF-8 is an error only where it is called from C.
_READ_HEADERS = methodcaller("headers")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# Numbers become bytes and objects tuples of pairs, which nothing else in JSON becomes: so repr() of what was read tells
# 1 from "1" and 1.0, and keeps an object's order and doubled names.
_READ = json.JSONDecoder(
    parse_int=str.encode,
    parse_float=str.encode,
    parse_constant=_no_constant,
    object_pairs_hook=tuple,
).decode
_LABELS = (b"0", b"1")
# A byte order mark, as UTF-8 text.
_MARK = "\ufeff"


def digest(*content: object) -> int:
    """Eight bytes, never zero."""
    try:
        text = repr(content)
    except RecursionError:
        # Five times deeper than what may be scored at all.
        text = "too deep"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def headers_of(message: Message) -> Headers | None:
    """None where the client cannot read them. To be asked once: asked again, a message gives what it failed to fill."""
    try:
        return list(_READ_HEADERS(message) or [])
    except (SystemError, UnicodeError):
        return None


def payments(value: bytes | None) -> list[Pairs | None]:
    """What each row's scored payment must hold, its prediction left out; None for a row that cannot be scored.

    Empty where the message is no payments in split form.
    """
    try:
        content = _READ((value or b"").decode().lstrip(_MARK))
        while isinstance(content, str):
            content = _READ(content.lstrip(_MARK))
        fields = dict(content) if isinstance(content, tuple) else {}
    except (ValueError, RecursionError):
        return []
    names, rows = fields.get("columns"), fields.get("data")
    if not isinstance(names, list) or not isinstance(rows, list):
        return []
    if not all(type(name) is str for name in names) or len(set(names)) < len(names):
        return []
    if rows and not any(isinstance(row, list) for row in rows) and not all(isinstance(row, tuple) for row in rows):
        # The values of one row, without a list of their own.
        rows = [rows]
    return [_as_scored(names, row) for row in rows]


def _as_scored(names: list[str], row: object) -> Pairs | None:
    if not isinstance(row, list) or len(row) != len(names):
        return None
    pairs = [
        (name, None if name == "is_fraud" else value)
        for name, value in zip(names, row, strict=True)
        if name != "fraud_confirmed"
    ]
    return pairs if "is_fraud" in names else [*pairs, ("is_fraud", None)]


def scored_payment(value: bytes | None) -> Pairs | str:
    """What a scored message holds, in the form of `payments`; else what is wrong with it."""
    try:
        records = _READ((value or b"").decode())
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(records, list) or len(records) != 1 or not isinstance(records[0], tuple):
        return "it is no list of one object"
    pairs: Pairs = list(records[0])
    if not pairs or pairs.pop() != ("fraud_confirmed", None):
        return '"fraud_confirmed": null is not at its end'
    predictions = [value for name, value in pairs if name == "is_fraud"]
    if len(predictions) != 1 or predictions[0] not in _LABELS:
        return "is_fraud is not 0 or 1"
    return [(name, None if name == "is_fraud" else value) for name, value in pairs]


@dataclass(frozen=True, slots=True)
class MessageSource:
    """Where an output message says it came from; `original` are the headers that are not the scoring's own.

    `original_row`: in a dead letter without the message's bytes, the row whose dead letter holds them.
    """

    topic: str
    partition: int
    offset: int
    row: int | None
    batch: str
    original: Headers
    reason: bytes | None
    original_row: int | None = None


def place_of(headers: Headers | None, *, dead: bool) -> MessageSource | None:
    """Of an output message with these headers; None where they do not say so."""
    headers = headers or []
    # A dead letter keeps the original's headers, which come first and may have the same names.
    reasons = [at for at, (name, _) in enumerate(headers) if name == "reason"] if dead else []
    first = reasons[-1] if reasons else 0
    own = dict(headers[first:])
    source = _SOURCE.fullmatch(own.get("source") or b"")
    if source is None:
        return None
    row, original_row = own.get("row"), own.get("original_row") if dead else None
    return MessageSource(
        topic=source[1].decode(errors="replace"),
        partition=int(source[2]),
        offset=int(source[3]),
        row=int(row) if row is not None and row.isdigit() else None,
        batch=(own.get("batch_id") or b"?").decode(errors="replace"),
        original=headers[:first],
        reason=own.get("reason") if reasons else None,
        original_row=int(original_row) if original_row is not None and original_row.isdigit() else None,
    )


def has_reason(place: MessageSource) -> bool:
    return place.reason is not None and _REASON.match(place.reason) is not None


def why_scored_differs(original: Message, row: int, scored: Message) -> str:
    """In names only: neither a log nor a terminal may show what a payment holds."""
    rows = payments(original.value())
    want = rows[row] if row < len(rows) else None
    if want is None:
        return "scored, but that row cannot be"
    wrong = ["the key"] if original.key() != scored.key() else []
    came = scored_payment(scored.value())
    if isinstance(came, str):
        return ", ".join([*wrong, came])
    if [name for name, _ in want] != [name for name, _ in came]:
        wrong.append("its columns or their order")
    else:
        pairs = zip(want, came, strict=True)
        wrong += [_short(name) for (name, before), (_, after) in pairs if repr(before) != repr(after)]
    return ", ".join(wrong)


def why_dead_letter_differs(original: Message, dead: Message, place: MessageSource) -> str:
    wrong = []
    if original.key() != dead.key():
        wrong.append("the key")
    if place.original_row is not None:
        wrong.append(f"no dead letter of row {place.original_row} holds the message")
        return ", ".join(wrong)
    if original.value() != dead.value():
        wrong.append("the value")
    if (headers_of(original) or []) != place.original:
        wrong.append("the headers")
    if not has_reason(place):
        wrong.append("it has no reason")
    return ", ".join(wrong)


def _short(name: str, most: int = 60) -> str:
    return name if name.isprintable() and 0 < len(name) <= most else repr(name[:most])
