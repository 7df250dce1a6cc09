"""What is due of one partition and what came, in about 35 bytes a payment."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from include.verify.expected_message import Pairs, digest

_MOST = 255


class Tally:
    """Messages are added in the order of their offsets; then what came is counted against them."""

    def __init__(self) -> None:
        self._offsets = array("q")
        self._first = array("q", [0])  # a message's first row; the next message's is its end
        self._originals = array("Q")
        self._wholes = bytearray()
        # The digest of a message's key, of messages with several rows only.
        self._keys: dict[int, int] = {}
        self._payments = array("Q")  # zero: that row cannot be scored
        self._rows = bytearray()
        self.scored = 0
        self.dead_letters = 0
        self.altered = 0
        self.nowhere = 0

    @property
    def messages(self) -> int:
        return len(self._offsets)

    def add(self, offset: int, key: bytes | None, original: int, rows: Sequence[Pairs | None]) -> None:
        """`original` is the digest of what a dead letter of this message must hold."""
        self._offsets.append(offset)
        self._originals.append(original)
        self._wholes.append(0)
        self._payments.extend(digest(key, row) if row is not None else 0 for row in rows)
        self._rows.extend(bytes(len(rows)))
        if len(rows) > 1:
            self._keys[offset] = digest(key)
        self._first.append(len(self._payments))

    def count(self, offset: int, row: int | None) -> int | None:
        """One more came: how often it did so far, or None where there is no such message or row."""
        message = self._message(offset)
        if message is None:
            return None
        if row is None:
            self._wholes[message] = min(_MOST, self._wholes[message] + 1)
            first, end = self._first[message], self._first[message + 1]
            return self._wholes[message] + max(self._rows[first:end], default=0)
        place = self._first[message] + row
        if place >= self._first[message + 1]:
            return None
        self._rows[place] = min(_MOST, self._rows[place] + 1)
        return self._rows[place] + self._wholes[message]

    def payment(self, offset: int, row: int) -> int:
        """The digest of what its scored payment must hold, 0 where it cannot be scored; only of what was counted."""
        message = self._message(offset)
        return 0 if message is None else self._payments[self._first[message] + row]

    def original(self, offset: int) -> int:
        message = self._message(offset)
        return 0 if message is None else self._originals[message]

    def has_key(self, offset: int, key: bytes | None) -> bool:
        """Return whether a message with several rows has this key."""
        return self._keys.get(offset) == digest(key)

    def due(self) -> Iterator[tuple[int, int | None, int]]:
        """Offset, row (None: the whole message) and how often it came."""
        for message, offset in enumerate(self._offsets):
            first, end = self._first[message], self._first[message + 1]
            if first == end:
                yield offset, None, self._wholes[message]
            for place in range(first, end):
                yield offset, place - first, self._rows[place] + self._wholes[message]

    def _message(self, offset: int) -> int | None:
        at = bisect_left(self._offsets, offset)
        return at if at < len(self._offsets) and self._offsets[at] == offset else None
