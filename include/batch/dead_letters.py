"""Build the dead letters of a staged chunk: each holds the whole message; of a large one, only the first row's does."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from include.batch import chunks
from include.kafka.headers import Headers

# Each refused row gets a copy of its message while all copies of it together are at most this many bytes.
_MAX_COPIED_BYTES = 1_000_000


class DeadLetters:
    """Values and headers of a chunk's refused rows."""

    def __init__(
        self,
        offsets: Sequence[int],
        rows: Sequence[int | None],
        reasons: Sequence[str | None],
        read: Callable[[], dict[str, list[Any]]],
    ) -> None:
        """`read` gives the columns `value` and `headers`, which are read only where there is a dead letter."""
        self._offsets, self._rows, self._reasons = offsets, rows, reasons
        self._read = read
        self._originals: dict[str, list[Any]] | None = None
        # Offset of the message that is too large to copy for each row, and the row whose dead letter holds it.
        self._large: tuple[int, int] | None = None

    def content(self, index: int, source: tuple[str, bytes]) -> tuple[bytes | None, Headers]:
        """Return value and headers of a refused row. Call it in the order of the rows."""
        offset, row = self._offsets[index], self._rows[index]
        own: Headers = [("reason", str(self._reasons[index]).encode()), source]
        if row is None:
            return self._original(index, own)
        own.append(("row", b"%d" % row))
        if self._large is not None and self._large[0] == offset:
            return b"", [*own, ("original_row", b"%d" % self._large[1])]
        value, headers = self._original(index, own)
        if self._refused_from(index) * self._size(index) > _MAX_COPIED_BYTES:
            self._large = offset, row
        return value, headers

    def _original(self, index: int, own: Headers) -> tuple[bytes | None, Headers]:
        originals, first = self._columns(), self._first(index)
        return originals["value"][first], [*chunks.unpack_headers(originals["headers"][first]), *own]

    def _size(self, index: int) -> int:
        originals, first = self._columns(), self._first(index)
        return len(originals["value"][first] or b"") + len(originals["headers"][first] or b"")

    def _columns(self) -> dict[str, list[Any]]:
        if self._originals is None:
            self._originals = self._read()
        return self._originals

    def _first(self, index: int) -> int:
        """Return the index of the message's first row, which holds its staged value and headers."""
        return bisect_left(self._offsets, self._offsets[index], hi=index + 1)

    def _refused_from(self, index: int) -> int:
        end = bisect_right(self._offsets, self._offsets[index], lo=index, hi=len(self._reasons))
        return sum(reason is not None for reason in self._reasons[index:end])
