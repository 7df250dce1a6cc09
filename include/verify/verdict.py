"""What `fraud verify` found."""

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


@dataclass(frozen=True)
class Verdict:
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

    @property
    def is_whole(self) -> bool:
        return all(part.is_whole for part in self.partitions)

    def count(self, kind: str) -> int:
        """Over all partitions; `kind` is a field of PartitionVerdict."""
        return sum(getattr(part, kind) for part in self.partitions)

    def found(self, kind: str) -> tuple[Finding, ...]:
        listed: tuple[Finding, ...] = getattr(self, kind)
        return listed
