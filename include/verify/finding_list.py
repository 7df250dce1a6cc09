"""The findings of `fraud verify` that its report lists: the first ones of each kind."""

from __future__ import annotations

from confluent_kafka import Message

from include.verify.expected_message import MessageSource
from include.verify.findings import TOPIC_KINDS, Finding

_MAX_COPIED_PAYMENTS = 1_000
_MAX_COPIES_EACH = 10


class FindingList:
    """At most `limit` findings of each kind, and the positions at which payments came out again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._findings: dict[str, list[Finding]] = {kind: [] for kind in TOPIC_KINDS}
        self._copies: dict[tuple[int, int, int | None], list[str]] = {}
        self.altered: list[tuple[MessageSource, Message]] = []

    def add(self, kind: str, source: str, row: int | None, detail: str = "") -> None:
        """Add a finding unless its kind has `limit` already. `source` is topic/partition/offset."""
        if len(self._findings[kind]) < self._limit:
            self._findings[kind].append(Finding(source, row, detail))

    def add_altered(self, source: MessageSource, message: Message) -> None:
        """Keep one of the first `limit` altered messages; how it differs is found out after all topics are read."""
        if len(self.altered) < self._limit:
            self.altered.append((source, message))

    def add_copy(self, source: MessageSource, message: Message) -> None:
        """Keep the position of a payment that came out again: ten positions each, of the first 1,000 payments."""
        payment = source.partition, source.offset, source.row
        if len(self._copies) < _MAX_COPIED_PAYMENTS or payment in self._copies:
            copies = self._copies.setdefault(payment, [])
            if len(copies) < _MAX_COPIES_EACH:
                copies.append(f"{position(message)} (batch {source.batch})")

    def describe_copies(self, partition: int, offset: int, row: int | None, times: int) -> str:
        """Return how often a payment came out, and the positions of its copies that are known."""
        payments = {(partition, offset, row), (partition, offset, None)}
        copies = ", ".join(copy for payment in sorted(payments, key=str) for copy in self._copies.get(payment, []))
        return f"{times} times" + (f", again at {copies}" if copies else "")

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind, in the order in which they were added."""
        return tuple(self._findings[kind])


def position(message: Message) -> str:
    """Return `topic/partition/offset` of a message."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}"
