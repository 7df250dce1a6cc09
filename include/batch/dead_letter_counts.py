"""Count dead letters over several batches, in a small file beside the incidents.

The count covers the batches since the last one with a share of dead letters below FRAUD_DEAD_LETTER_SHARE. Without it,
a topic with few messages a minute would never reach FRAUD_DEAD_LETTER_LEAST. For the output topic, each try of
`record_predictions` counts as a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import msgspec

from include.errors import StagedFileDamagedError
from include.storage.staging import Storage

if TYPE_CHECKING:
    from include.batch.scored_batch import ScoredPartition

# Counts of so many batches are kept apart, so that a batch counts once if its task is repeated. Older ones are summed.
_SEPARATE_BATCHES = 20


@dataclass(frozen=True)
class DeadLetterCounts:
    """How many messages there were, how many of them are dead letters, and these by reason code.

    The messages of a batch are those that it publishes: one for each scored payment and each dead letter. Those of a
    try of `record_predictions` are the messages of the output topic that it read.
    """

    messages: int = 0
    dead: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_partitions(cls, partitions: Iterable[ScoredPartition]) -> Self:
        """Return the counts of some partitions together."""
        every = list(partitions)
        dead = sum(one.dead_letters for one in every)
        reasons = sum((Counter(one.reasons) for one in every), Counter[str]())
        return cls(dead + sum(one.scored for one in every), dead, dict(reasons))

    @property
    def share(self) -> float:
        """Return the share of dead letters, between 0 and 1. Raise ZeroDivisionError without messages."""
        return self.dead / self.messages

    def plus(self, other: DeadLetterCounts) -> DeadLetterCounts:
        """Return the counts of both together."""
        reasons = Counter(self.reasons) + Counter(other.reasons)
        return DeadLetterCounts(self.messages + other.messages, self.dead + other.dead, dict(reasons))


@dataclass(frozen=True)
class CountedBatches:
    """The content of the file.

    `batches` has the newest batches by id, `earlier` the sum of the batches before, and `earlier_batches` their number.
    """

    batches: dict[str, DeadLetterCounts] = field(default_factory=dict)
    earlier: DeadLetterCounts = field(default_factory=DeadLetterCounts)
    earlier_batches: int = 0

    @property
    def number(self) -> int:
        """Return the number of batches."""
        return self.earlier_batches + len(self.batches)

    @property
    def total(self) -> DeadLetterCounts:
        """Return the counts of all batches together."""
        total = self.earlier
        for counts in self.batches.values():
            total = total.plus(counts)
        return total

    def with_batch(self, batch_id: str, counts: DeadLetterCounts) -> CountedBatches:
        """Return the batches with one more, or with new counts of a batch that is there already."""
        batches: Mapping[str, DeadLetterCounts] = self.batches | {batch_id: counts}
        if len(batches) <= _SEPARATE_BATCHES:
            return replace(self, batches=dict(batches))
        (_, oldest), *others = batches.items()
        return CountedBatches(dict(others), self.earlier.plus(oldest), self.earlier_batches + 1)


class DeadLetterFile:
    """The file with the counts of one DAG. Methods raise StagingError if it cannot be read or written."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path

    def add(self, batch_id: str, counts: DeadLetterCounts) -> CountedBatches:
        """Add a batch, and return all batches."""
        counted = self._read().with_batch(batch_id, counts)
        self._storage.write(self._path, msgspec.json.encode(counted))
        return counted

    def clear(self) -> None:
        """Forget all batches."""
        if self._read().number:
            self._storage.write(self._path, msgspec.json.encode(CountedBatches()))

    def _read(self) -> CountedBatches:
        """Return the file's content; no batches if there is no file or it is damaged."""
        try:
            data = self._storage.read(self._path)
            return msgspec.json.decode(data, type=CountedBatches) if data else CountedBatches()
        except (StagedFileDamagedError, msgspec.MsgspecError):
            return CountedBatches()
