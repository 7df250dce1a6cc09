"""Values of JSON as cells of a line for PostgreSQL's COPY, in its text format: null where no column takes them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from include.payments.timestamps import moment_of

NULL = b"\\N"
_QUOTE = ord('"')
_PLAIN_TIME = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
_DIGITS = frozenset(b"-0123456789")
# What PostgreSQL fails over when it takes json apart, for whichever member. An escaped backslash begins no escape.
_NUL = re.compile(rb"(\\\\)|\\u0000")
_ESCAPES = ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r"))
# PostgreSQL takes 131,072 digits; nobody pays so much.
_MOST_DIGITS = 1_000
_LONGEST_NAME = 1_000
# What a text of nothing but blanks may begin with, as UTF-8, or escaped.
_BEFORE_BLANKS = frozenset([*range(0x21), *b"\\", *range(0x80, 0x100)])


def text_cell(value: bytes) -> bytes:
    """A JSON value as a text column: null where there is none. PostgreSQL's texts hold no NUL character."""
    first = value[0]
    if first in _DIGITS:
        return value
    if first == _QUOTE:
        if b"\\" not in value:
            return value[1:-1] or NULL
        text = json.loads(value).replace("\0", "\ufffd")
        return escaped(text.encode("utf-8", "replace"))
    return NULL if value == b"null" else escaped(value)


def name_cell(value: bytes) -> bytes:
    """A text that an index takes, PostgreSQL's no more than 2,704 bytes, and by which a payment can be asked for."""
    text = text_cell(value)
    is_blank = text[0] in _BEFORE_BLANKS and value[0] == _QUOTE and not json.loads(value).strip()
    return NULL if is_blank or len(text) > _LONGEST_NAME else text


def amount_cell(value: bytes) -> bytes:
    """A number, or a text that is one; else null."""
    if value[0] in _DIGITS and len(value) < 40 and b"e" not in value and b"E" not in value:
        return value
    value = value.strip(b'" ')
    try:
        number = Decimal(value.decode()) if len(value) <= _MOST_DIGITS and b"_" not in value else None
    except (InvalidOperation, UnicodeDecodeError):
        return NULL
    if number is None or not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        return NULL
    return str(number).encode()


def time_cell(value: bytes) -> bytes:
    """A text that is a time; without a zone it is in UTC."""
    text = value[1:-1] if value[0] == _QUOTE else b""
    try:
        parsed = datetime.fromisoformat(text.decode())
        # PostgreSQL does not read all that Python does: weeks, for one, or a comma before a fraction.
        return text if _PLAIN_TIME.fullmatch(text) else utc(parsed).encode()
    except (ValueError, OverflowError):
        return NULL


def unix_time_cell(value: bytes) -> bytes:
    """Return the time of a number, or of a text that is one."""
    if value[0] not in _DIGITS and value[0] != _QUOTE:
        return NULL
    try:
        moment = moment_of(json.loads(value))
    except ValueError:
        # More digits than Python reads.
        return NULL
    return NULL if moment is None else utc(moment).encode()


def utc(time: datetime) -> str:
    """One without a zone is in UTC."""
    return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def json_cell(value: bytes) -> bytes:
    """What stands between the brackets of a list's text, as it is, but for NUL."""
    inner = value[1:-1] if value[:1] == b"[" and value[-1:] == b"]" else value.strip()[1:-1]
    if b"\\" in inner and rb"\u0000" in inner:
        inner = _NUL.sub(lambda found: found[1] or rb"\ufffd", inner)
    return escaped(inner)


def escaped(text: bytes) -> bytes:
    """As COPY wants it."""
    # Nearly always there is nothing to do: asked one by one, for that is quicker than a loop or a pattern.
    if b"\\" in text or b"\n" in text or b"\t" in text or b"\r" in text:
        for sign, escape in _ESCAPES:
            text = text.replace(sign, escape)
    return text
