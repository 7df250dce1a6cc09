"""Convert JSON values to the text format of PostgreSQL's COPY: one cell a value, NULL if the column cannot hold it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from include.payments.timestamps import parse_unix_time

NULL = b"\\N"
_QUOTE = ord('"')
_POSTGRES_TIME = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
_NUMBER_START = frozenset(b"-0123456789")
# PostgreSQL fails to read a member of a json value if any member has this escape. An escaped backslash begins none.
_NUL_ESCAPE = re.compile(rb"(\\\\)|\\u0000")
_ESCAPES = ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r"))
# PostgreSQL's numeric holds 131,072 digits; no amount needs so many.
_MAX_DIGITS = 1_000
# PostgreSQL's index entries hold 2,704 bytes.
_MAX_KEY_BYTES = 1_000
# The bytes with which a text of white space only may begin, in UTF-8 or as an escape.
_BLANK_START = frozenset([*range(0x21), *b"\\", *range(0x80, 0x100)])


def text_cell(value: bytes) -> bytes:
    """Return a JSON value as text; NULL for null and the empty string. A NUL character becomes U+FFFD."""
    first = value[0]
    if first in _NUMBER_START:
        return value
    if first == _QUOTE:
        if b"\\" not in value:
            return value[1:-1] or NULL
        text = json.loads(value).replace("\0", "\ufffd")
        return escape(text.encode("utf-8", "replace"))
    return NULL if value == b"null" else escape(value)


def key_cell(value: bytes) -> bytes:
    """Return a JSON value as text for an indexed column; NULL if it is blank or longer than 1,000 bytes."""
    text = text_cell(value)
    is_blank = text[0] in _BLANK_START and value[0] == _QUOTE and not json.loads(value).strip()
    return NULL if is_blank or len(text) > _MAX_KEY_BYTES else text


def amount_cell(value: bytes) -> bytes:
    """Return a JSON number, or a string that is a number; else NULL."""
    if value[0] in _NUMBER_START and len(value) < 40 and b"e" not in value and b"E" not in value:
        return value
    value = value.strip(b'" ')
    try:
        number = Decimal(value.decode()) if len(value) <= _MAX_DIGITS and b"_" not in value else None
    except (InvalidOperation, UnicodeDecodeError):
        return NULL
    if number is None or not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS:
        return NULL
    return str(number).encode()


def time_cell(value: bytes) -> bytes:
    """Return a JSON string that is an ISO 8601 time, in UTC unless it has a time zone; else NULL."""
    text = value[1:-1] if value[0] == _QUOTE else b""
    try:
        parsed = datetime.fromisoformat(text.decode())
        # PostgreSQL does not read all forms that Python reads, such as weeks and a comma before the fraction.
        return text if _POSTGRES_TIME.fullmatch(text) else utc_text(parsed).encode()
    except (ValueError, OverflowError):
        return NULL


def unix_time_cell(value: bytes) -> bytes:
    """Return the time since 1970 that a JSON number, or a string that is a number, means; else NULL."""
    if value[0] not in _NUMBER_START and value[0] != _QUOTE:
        return NULL
    try:
        time = parse_unix_time(json.loads(value))
    except ValueError:
        # Python refuses to read a number of more than 4,300 digits.
        return NULL
    return NULL if time is None else utc_text(time).encode()


def utc_text(time: datetime) -> str:
    """Return the time in UTC as ISO 8601; a time without a time zone is in UTC already."""
    return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def json_cell(value: bytes) -> bytes:
    """Return the text between the brackets of a JSON list, unchanged except for NUL escapes, which become U+FFFD."""
    inner = value[1:-1] if value[:1] == b"[" and value[-1:] == b"]" else value.strip()[1:-1]
    if b"\\" in inner and rb"\u0000" in inner:
        inner = _NUL_ESCAPE.sub(lambda match: match[1] or rb"\ufffd", inner)
    return escape(inner)


def escape(text: bytes) -> bytes:
    """Return the text with backslashes, tabs and line breaks as COPY's text format requires them."""
    # Most texts need no escape. Four searches are faster than a loop or a pattern.
    if b"\\" in text or b"\n" in text or b"\t" in text or b"\r" in text:
        for character, replacement in _ESCAPES:
            text = text.replace(character, replacement)
    return text
