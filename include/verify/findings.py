"""The result of `fraud verify`, and of `fraud reconcile`, which also compares the ledger.

Counts cover everything; of each kind of finding, a report lists the first ones only.
"""

from __future__ import annotations

from dataclasses import dataclass

TOPIC_KINDS = ("missing", "double", "altered", "nowhere")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `source` is topic/partition/offset of the input; `row` is None for a whole message."""

    source: str
    row: int | None
    detail: str = ""

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        return f"{self.source}{row}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class PartitionCounts:
    """Counts of the offsets `[start, end)` of one input partition. A message that is not a payment is due once too."""

    partition: int
    start: int
    end: int
    messages: int
    due: int
    scored: int
    dead_letters: int
    missing: int
    double: int
    altered: int
    nowhere: int

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is wrong."""
        return not (self.missing or self.double or self.altered or self.nowhere)


LEDGER_KINDS = ("unrecorded", "differing", "unfounded", "unbatched", "miscounted")


@dataclass(frozen=True)
class LedgerPartitionCounts:
    """Counts of the ledger's rows of one input partition, and of what is wrong with them.

    `unbatched` counts the offsets that are in no batch record, `miscounted` the batches whose record counts differ from
    the rows. `waiting` counts published predictions that the next run records.
    """

    partition: int
    rows: int = 0
    waiting: int = 0
    unrecorded: int = 0
    differing: int = 0
    unfounded: int = 0
    unbatched: int = 0
    miscounted: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is wrong."""
        return not any(getattr(self, kind) for kind in LEDGER_KINDS)


@dataclass(frozen=True)
class LedgerReport:
    """The comparison of the ledger. `foreign` are messages on the output topic that are not predictions."""

    address: str
    partitions: tuple[LedgerPartitionCounts, ...]
    foreign_count: int
    foreign: tuple[Finding, ...]
    unrecorded: tuple[Finding, ...]
    differing: tuple[Finding, ...]
    unfounded: tuple[Finding, ...]
    unbatched: tuple[Finding, ...]
    miscounted: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.foreign_count and all(part.is_whole for part in self.partitions)

    def count(self, kind: str) -> int:
        """Return a count over all partitions; `kind` is "foreign" or a field of LedgerPartitionCounts."""
        return self.foreign_count if kind == "foreign" else sum(getattr(part, kind) for part in self.partitions)

    def findings(self, kind: str) -> tuple[Finding, ...]:
        """Return the listed findings of one kind."""
        findings: tuple[Finding, ...] = getattr(self, kind)
        return findings


@dataclass(frozen=True)
class VerifyReport:
    """The result for one window, with the comparison of the ledger if it was requested."""

    input_topic: str
    output_topic: str
    dead_letter_topic: str
    group: str
    partitions: tuple[PartitionCounts, ...]
    missing: tuple[Finding, ...]
    double: tuple[Finding, ...]
    altered: tuple[Finding, ...]
    nowhere: tuple[Finding, ...]
    notes: tuple[str, ...]
    ledger: LedgerReport | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is wrong with any partition or the ledger."""
        return all(part.is_whole for part in self.partitions) and (self.ledger is None or self.ledger.is_whole)

    def count(self, kind: str) -> int:
        """Return a count over all partitions; `kind` is a field of PartitionCounts."""
        return sum(getattr(part, kind) for part in self.partitions)

    def findings(self, kind: str) -> tuple[Finding, ...]:
        """Return the listed findings of one kind."""
        findings: tuple[Finding, ...] = getattr(self, kind)
        return findings
