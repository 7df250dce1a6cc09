"""Dead letters of rows that do not hold their message: they name the row whose dead letter does."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Message

from include.verify.message import Place

_Row = tuple[int, int, int | None]


class SharedLetters:
    def __init__(self) -> None:
        self._held: set[_Row] = set()
        self._shared: dict[_Row, tuple[Place, Message]] = {}
        self._counts: dict[_Row, int] = {}

    def hold(self, place: Place) -> None:
        """Note a dead letter of a row that holds the message, byte for byte."""
        if place.row is not None:
            self._held.add((place.partition, place.offset, place.row))

    def share(self, place: Place, message: Message) -> None:
        """Note a dead letter that names another row; they come in any order."""
        at = place.partition, place.offset, place.original_row
        self._shared.setdefault(at, (place, message))
        self._counts[at] = self._counts.get(at, 0) + 1

    def without_original(self) -> Iterator[tuple[Place, Message, int]]:
        """Yield the first of those whose named row holds nothing, and how many name it."""
        for at, (place, message) in self._shared.items():
            if at not in self._held:
                yield place, message, self._counts[at]
