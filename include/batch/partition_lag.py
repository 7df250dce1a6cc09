"""Describe what waits in a partition of the input topic when a batch is planned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class PartitionLag:
    """The lag of a partition: what waits there.

    Attributes:
        committed: The group's committed offset, None if it has none.
        low: The first offset that the partition retains.
        stable: The last stable offset: messages before it can be read.
        oldest_at: When the first message to be read was written, None if unknown.
        moved_from: Where this DAG's runs would have continued, if another program has committed `committed` instead.
        blocked: How many offsets from `stable` on wait for the end of a kafka transaction. It is 0 while messages
            before `stable` can be read.
    """

    partition: int
    committed: int | None
    low: int
    stable: int
    oldest_at: datetime | None = None
    moved_from: int | None = None
    blocked: int = 0

    @property
    def start(self) -> int:
        """Return the first offset that is left to read."""
        return self.low if self.committed is None else max(self.committed, self.low)

    @property
    def end(self) -> int:
        """Return one past the last offset, blocked ones included."""
        return self.stable + self.blocked

    @property
    def unread(self) -> int:
        """Return how many offsets are left to read, blocked ones included."""
        return max(0, self.end - self.start)

    @property
    def lost(self) -> int:
        """Return how many offsets expired unread."""
        return self.start - self.committed if self.committed is not None else 0
