"""Whether output messages hold what they must: a scored payment its payment, a dead letter its message.

Of several dead letters of one message, only one holds it; the others name that one's row (`original_row`).
"""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Message

from include.verify import expected_message as expected
from include.verify.expected_message import MessageSource
from include.verify.tally import Tally

# partition, offset, row
_Row = tuple[int, int, int | None]


class ContentCheck:
    """Compare messages with the digests in a tally, and keep references to rows until all dead letters are read."""

    def __init__(self) -> None:
        self._originals: set[_Row] = set()
        self._references: dict[_Row, tuple[MessageSource, Message]] = {}
        self._counts: dict[_Row, int] = {}

    def is_scored_as_expected(self, tally: Tally, source: MessageSource, message: Message) -> bool:
        """Return whether a scored message has its payment's key and fields, and a prediction."""
        payment = expected.parse_scored_message(message.value())
        digest = tally.payment_digest(source.offset, source.row or 0)
        return not isinstance(payment, str) and expected.digest(message.key(), payment) == digest

    def is_dead_letter_as_expected(self, tally: Tally, source: MessageSource, message: Message) -> bool:
        """Return whether a dead letter has a reason, and holds its message or names a row whose dead letter must."""
        if not expected.has_reason(source):
            return False
        if source.original_row is None:
            if expected.digest(message.key(), message.value(), source.original) != tally.original_digest(source.offset):
                return False
            if source.row is not None:
                self._originals.add((source.partition, source.offset, source.row))
            return True
        if message.value() or source.original or not tally.has_key(source.offset, message.key()):
            return False
        row = source.partition, source.offset, source.original_row
        self._references.setdefault(row, (source, message))
        self._counts[row] = self._counts.get(row, 0) + 1
        return True

    def unresolved_references(self) -> Iterator[tuple[MessageSource, Message, int]]:
        """Yield the first dead letter that names a row whose dead letter holds no message, and how many name that row.

        Call it after all dead letters: they come in any order.
        """
        for row, (source, message) in self._references.items():
            if row not in self._originals:
                yield source, message, self._counts[row]
