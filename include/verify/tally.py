"""What is due from one input partition and how often it came out, in about 35 bytes per payment."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from include.verify.expected_message import Pairs, digest

_MAX_COUNT = 255  # the counts are bytes


class Tally:
    """The messages of a partition, added in the order of their offsets, and counts of their outputs."""

    def __init__(self) -> None:
        self._offsets = array("q")
        # The index of each message's first row; the next message's is its end.
        self._first_rows = array("q", [0])
        self._originals = array("Q")
        self._message_counts = bytearray()
        # By offset, the digest of the key; only of messages with several rows.
        self._keys: dict[int, int] = {}
        self._payments = array("Q")  # 0: the row cannot be scored
        self._row_counts = bytearray()
        self.scored = 0
        self.dead_letters = 0
        self.altered = 0
        self.nowhere = 0

    @property
    def messages(self) -> int:
        """Return the number of messages."""
        return len(self._offsets)

    def add(self, offset: int, key: bytes | None, original: int, rows: Sequence[Pairs | None]) -> None:
        """Add a message. `original` is the digest of what its dead letter must hold, `rows` its expected payments."""
        self._offsets.append(offset)
        self._originals.append(original)
        self._message_counts.append(0)
        self._payments.extend(digest(key, row) if row is not None else 0 for row in rows)
        self._row_counts.extend(bytes(len(rows)))
        if len(rows) > 1:
            self._keys[offset] = digest(key)
        self._first_rows.append(len(self._payments))

    def count(self, offset: int, row: int | None) -> int | None:
        """Count one more output of a row, or of the whole message if `row` is None.

        Return how often it has come out so far, None if there is no such message or row.
        """
        message = self._message(offset)
        if message is None:
            return None
        if row is None:
            self._message_counts[message] = min(_MAX_COUNT, self._message_counts[message] + 1)
            first, end = self._first_rows[message], self._first_rows[message + 1]
            return self._message_counts[message] + max(self._row_counts[first:end], default=0)
        index = self._first_rows[message] + row
        if index >= self._first_rows[message + 1]:
            return None
        self._row_counts[index] = min(_MAX_COUNT, self._row_counts[index] + 1)
        return self._row_counts[index] + self._message_counts[message]

    def payment_digest(self, offset: int, row: int) -> int:
        """Return the digest of a row's scored payment, 0 if it cannot be scored. The row must have been counted."""
        message = self._message(offset)
        return 0 if message is None else self._payments[self._first_rows[message] + row]

    def original_digest(self, offset: int) -> int:
        """Return the digest of what the dead letter of a message must hold, 0 if there is no such message."""
        message = self._message(offset)
        return 0 if message is None else self._originals[message]

    def has_key(self, offset: int, key: bytes | None) -> bool:
        """Return whether a message with several rows has this key."""
        return self._keys.get(offset) == digest(key)

    def due_rows(self) -> Iterator[tuple[int, int | None, int]]:
        """Yield each offset, its row and how often it came out. A message without rows is due once, with row None."""
        for message, offset in enumerate(self._offsets):
            first, end = self._first_rows[message], self._first_rows[message + 1]
            if first == end:
                yield offset, None, self._message_counts[message]
            for index in range(first, end):
                yield offset, index - first, self._row_counts[index] + self._message_counts[message]

    def _message(self, offset: int) -> int | None:
        at = bisect_left(self._offsets, offset)
        return at if at < len(self._offsets) and self._offsets[at] == offset else None
