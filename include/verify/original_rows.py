"""Check dead letters that do not contain their message but name the row whose dead letter does (`original_row`)."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Message

from include.verify.expected_message import MessageSource

_Row = tuple[int, int, int | None]


class OriginalRows:
    """Collect rows whose dead letter holds the message, and references to such rows."""

    def __init__(self) -> None:
        self._originals: set[_Row] = set()
        self._references: dict[_Row, tuple[MessageSource, Message]] = {}
        self._counts: dict[_Row, int] = {}

    def add_original(self, place: MessageSource) -> None:
        """Add a dead letter of a row that holds the message, byte for byte."""
        if place.row is not None:
            self._originals.add((place.partition, place.offset, place.row))

    def add_reference(self, place: MessageSource, message: Message) -> None:
        """Add a dead letter that names another row; they come in any order."""
        at = place.partition, place.offset, place.original_row
        self._references.setdefault(at, (place, message))
        self._counts[at] = self._counts.get(at, 0) + 1

    def unresolved(self) -> Iterator[tuple[MessageSource, Message, int]]:
        """Yield the first reference to each row whose dead letter holds no message, and how many name that row."""
        for at, (place, message) in self._references.items():
            if at not in self._originals:
                yield place, message, self._counts[at]
