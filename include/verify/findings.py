"""What `fraud verify` found, and `fraud reconcile`, which also asks the ledger."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("missing", "double", "altered", "nowhere")


@dataclass(frozen=True)
class Finding:
    """`source` is topic/partition/offset of the input; `row` is None where the whole message is meant."""

    source: str
    row: int | None
    detail: str = ""

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        return f"{self.source}{row}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class PartitionVerdict:
    """Counts of one input partition's offsets `[start, end)`. A message that is no payment is due once, like one."""

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
        return not (self.missing or self.double or self.altered or self.nowhere)


LEDGER_KINDS = ("unrecorded", "differing", "unfounded", "unbatched", "miscounted")


@dataclass(frozen=True)
class LedgerPartition:
    """Of one input partition: its rows in the ledger and what is wrong with them; `unbatched` counts the offsets that
    no batch record holds, `miscounted` the batches that scored more or fewer payments than there are rows. What is
    `waiting` is published, and recorded by the next run."""

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
        return not any(getattr(self, kind) for kind in LEDGER_KINDS)


@dataclass(frozen=True)
class LedgerVerdict:
    """`foreign` is what stands on the output topic and is no prediction; of each kind the first findings only."""

    address: str
    partitions: tuple[LedgerPartition, ...]
    foreign_count: int
    foreign: tuple[Finding, ...]
    unrecorded: tuple[Finding, ...]
    differing: tuple[Finding, ...]
    unfounded: tuple[Finding, ...]
    unbatched: tuple[Finding, ...]
    miscounted: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        return not self.foreign_count and all(part.is_whole for part in self.partitions)

    def count(self, kind: str) -> int:
        return self.foreign_count if kind == "foreign" else sum(getattr(part, kind) for part in self.partitions)

    def found(self, kind: str) -> tuple[Finding, ...]:
        listed: tuple[Finding, ...] = getattr(self, kind)
        return listed


@dataclass(frozen=True)
class VerifyReport:
    """The counts are of everything; of each kind the first findings only are listed."""

    input_topic: str
    output_topic: str
    dead_letter_topic: str
    group: str
    partitions: tuple[PartitionVerdict, ...]
    missing: tuple[Finding, ...]
    double: tuple[Finding, ...]
    altered: tuple[Finding, ...]
    nowhere: tuple[Finding, ...]
    notes: tuple[str, ...]
    ledger: LedgerVerdict | None = None

    @property
    def is_whole(self) -> bool:
        return all(part.is_whole for part in self.partitions) and (self.ledger is None or self.ledger.is_whole)

    def count(self, kind: str) -> int:
        """Over all partitions; `kind` is a field of PartitionVerdict."""
        return sum(getattr(part, kind) for part in self.partitions)

    def found(self, kind: str) -> tuple[Finding, ...]:
        listed: tuple[Finding, ...] = getattr(self, kind)
        return listed
