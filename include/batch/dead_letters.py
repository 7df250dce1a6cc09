"""Build the dead letters of a staged chunk. Each holds a copy of its message, unless the copies are large."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from include.batch import chunks
from include.kafka.headers import Headers

# The dead letter of each refused row holds a copy of its whole message. If the copies of one message were larger than
# this together, only the first of its dead letters holds one.
_MAX_COPIED_BYTES = 1_000_000


class DeadLetters:
    """The values and headers of a chunk's refused rows, which are the rows with a reason."""

    def __init__(
        self,
        offsets: Sequence[int],
        rows: Sequence[int | None],
        reasons: Sequence[str | None],
        read: Callable[[], dict[str, list[Any]]],
    ) -> None:
        """`offsets`, `rows` and `reasons` are columns of the chunk. `read` returns its columns value and headers."""
        self._offsets, self._rows, self._reasons = offsets, rows, reasons
        self._read = read
        # The offset of the message that is too large to copy, and the row whose dead letter holds it.
        self._large: tuple[int, int] | None = None

    def content(self, index: int, source: tuple[str, bytes]) -> tuple[bytes | None, Headers]:
        """Return value and headers of the dead letter of a refused row. Call it in the order of the rows."""
        offset, row = self._offsets[index], self._rows[index]
        own: Headers = [("reason", str(self._reasons[index]).encode()), source]
        if row is None:
            return self._with_message(index, own)
        own.append(("row", b"%d" % row))
        if self._large is not None and self._large[0] == offset:
            return b"", [*own, ("original_row", b"%d" % self._large[1])]
        if self._count_refused(index) * self._message_bytes(index) > _MAX_COPIED_BYTES:
            self._large = offset, row
        return self._with_message(index, own)

    def _with_message(self, index: int, own: Headers) -> tuple[bytes | None, Headers]:
        columns, first = self._columns, self._first_row(index)
        return columns["value"][first], [*chunks.unpack_headers(columns["headers"][first]), *own]

    def _message_bytes(self, index: int) -> int:
        columns, first = self._columns, self._first_row(index)
        return len(columns["value"][first] or b"") + len(columns["headers"][first] or b"")

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        # Read only if there is a dead letter.
        return self._read()

    def _first_row(self, index: int) -> int:
        """Return the index of the message's first row, which holds its staged value and headers."""
        return bisect_left(self._offsets, self._offsets[index], hi=index + 1)

    def _count_refused(self, index: int) -> int:
        """Return how many rows of the message are refused, from `index` on."""
        end = bisect_right(self._offsets, self._offsets[index], lo=index, hi=len(self._reasons))
        return sum(reason is not None for reason in self._reasons[index:end])
