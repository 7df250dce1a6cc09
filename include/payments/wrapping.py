"""Unwrap JSON that follows a byte order mark or is inside a JSON string, and detect `data` that is one flat row."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def unwrap(value: bytes) -> bytes | None:
    """Return the JSON object or list behind byte order marks or inside JSON strings; None if none is wrapped there."""
    inner = value
    while True:
        while inner.startswith(_BYTE_ORDER_MARK):
            inner = inner[len(_BYTE_ORDER_MARK) :]
        text = inner.lstrip()
        if not text.startswith(b'"'):
            return inner if inner is not value and text[:1] in (b"{", b"[") else None
        try:
            inner = msgspec.json.decode(text, type=str).encode()
        except msgspec.DecodeError:
            return None


def is_flat(data: Sequence[msgspec.Raw]) -> bool:
    """Return whether `data` is the values of one row: no list is among them, and not all are objects."""
    first = {bytes(memoryview(value)[:1]) for value in data}
    return bool(first) and b"[" not in first and first != {b"{"}
