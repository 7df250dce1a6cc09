"""What each input message must become, by the contract in docs/messages.md and without the code that scores.

The standard library's JSON decoder reads the values; numbers keep the text they were written in, so 1.0 is not 1.
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
# A header name that is not UTF-8 raises an error only if `headers` is called from C, as methodcaller does.
_READ_HEADERS = methodcaller("headers")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


# Only numbers become bytes, and only objects become tuples of pairs. So repr() of the result distinguishes 1, "1" and
# 1.0, and keeps the order of an object's names and repeated names.
_READ = json.JSONDecoder(
    parse_int=str.encode,
    parse_float=str.encode,
    parse_constant=_refuse_constant,
    object_pairs_hook=tuple,
).decode
_LABELS = (b"0", b"1")
_BYTE_ORDER_MARK = "\ufeff"
_MAX_NAME_LENGTH = 60


def digest(*content: object) -> int:
    """Return a digest of 8 bytes as a number greater than 0."""
    try:
        text = repr(content)
    except RecursionError:
        # Five times deeper than a message that can be scored.
        text = "too deep"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def read_headers(message: Message) -> Headers | None:
    """Return the headers, None if the client cannot decode them.

    Call it once for a message: after such an error, a second call returns a half-filled list.
    """
    try:
        return list(_READ_HEADERS(message) or [])
    except (SystemError, UnicodeError):
        return None


def expected_payments(value: bytes | None) -> list[Pairs | None]:
    """Return the fields of each row's scored payment, without the prediction; None for a row that cannot be scored.

    The list is empty if the message does not contain payments in split form.
    """
    try:
        content = _READ((value or b"").decode().lstrip(_BYTE_ORDER_MARK))
        while isinstance(content, str):
            content = _READ(content.lstrip(_BYTE_ORDER_MARK))
        fields = dict(content) if isinstance(content, tuple) else {}
    except (ValueError, RecursionError):
        return []
    names, rows = fields.get("columns"), fields.get("data")
    if not isinstance(names, list) or not isinstance(rows, list):
        return []
    if not all(type(name) is str for name in names) or len(set(names)) < len(names):
        return []
    if rows and not any(isinstance(row, list) for row in rows) and not all(isinstance(row, tuple) for row in rows):
        # `data` is one row, not a list of rows.
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


def parse_scored_message(value: bytes | None) -> Pairs | str:
    """Return the fields of a scored message as `expected_payments` does, or a text that says what is wrong with it."""
    try:
        records = _READ((value or b"").decode())
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(records, list) or len(records) != 1 or not isinstance(records[0], tuple):
        return "it is not a list of one object"
    pairs: Pairs = list(records[0])
    if not pairs or pairs.pop() != ("fraud_confirmed", None):
        return '"fraud_confirmed": null is not at its end'
    predictions = [value for name, value in pairs if name == "is_fraud"]
    if len(predictions) != 1 or predictions[0] not in _LABELS:
        return "is_fraud is not 0 or 1"
    return [(name, None if name == "is_fraud" else value) for name, value in pairs]


@dataclass(frozen=True, slots=True)
class MessageSource:
    """The input message that an output message names as its source.

    `original` are the headers of the input message. `original_row` is set in a dead letter without the message's bytes:
    the row whose dead letter holds them.
    """

    topic: str
    partition: int
    offset: int
    row: int | None
    batch: str
    original: Headers
    reason: bytes | None
    original_row: int | None = None

    @property
    def position(self) -> str:
        """Return `topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def parse_source(headers: Headers | None, *, is_dead_letter: bool) -> MessageSource | None:
    """Return the source that the headers of an output message name, None if they name none."""
    headers = headers or []
    # A dead letter keeps the original headers, which come first and may have the same names.
    reasons = [at for at, (name, _) in enumerate(headers) if name == "reason"] if is_dead_letter else []
    first = reasons[-1] if reasons else 0
    own = dict(headers[first:])
    source = _SOURCE.fullmatch(own.get("source") or b"")
    if source is None:
        return None
    row, original_row = own.get("row"), own.get("original_row") if is_dead_letter else None
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


def has_reason(source: MessageSource) -> bool:
    """Return whether a dead letter has a header `reason` of the form `code: text`."""
    return source.reason is not None and _REASON.match(source.reason) is not None


def describe_scored_difference(original: Message, row: int, scored: Message) -> str:
    """Return what differs, by name only: neither a log nor a terminal may show the values of a payment."""
    rows = expected_payments(original.value())
    wanted = rows[row] if row < len(rows) else None
    if wanted is None:
        return "it was scored, but that row cannot be scored"
    wrong = ["the key"] if original.key() != scored.key() else []
    found = parse_scored_message(scored.value())
    if isinstance(found, str):
        return ", ".join([*wrong, found])
    if [name for name, _ in wanted] != [name for name, _ in found]:
        wrong.append("its columns or their order")
    else:
        pairs = zip(wanted, found, strict=True)
        wrong += [_shorten(name) for (name, before), (_, after) in pairs if repr(before) != repr(after)]
    return ", ".join(wrong)


def describe_dead_letter_difference(original: Message, dead: Message, source: MessageSource) -> str:
    """Return what differs, by name only."""
    wrong = []
    if original.key() != dead.key():
        wrong.append("the key")
    if source.original_row is not None:
        wrong.append(f"no dead letter of row {source.original_row} holds the message")
        return ", ".join(wrong)
    if original.value() != dead.value():
        wrong.append("the value")
    if (read_headers(original) or []) != source.original:
        wrong.append("the headers")
    if not has_reason(source):
        wrong.append("it has no reason")
    return ", ".join(wrong)


def _shorten(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= _MAX_NAME_LENGTH else repr(name[:_MAX_NAME_LENGTH])
