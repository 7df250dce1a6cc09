"""How many messages became dead letters since the last batch with few of them: a small file beside the incidents.

Without it a topic with few messages a minute would never reach FRAUD_DEAD_LETTER_LEAST.
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
    from include.batch.scored_batch import PartitionScores

# Their counts stay apart, for a batch whose task is tried again counts once. Those before are summed up.
_BATCHES_APART = 20


@dataclass(frozen=True)
class DeadLetterCounts:
    messages: int = 0
    dead: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, published: Iterable[PartitionScores]) -> Self:
        every = list(published)
        dead = sum(one.dead_letters for one in every)
        reasons = sum((Counter(one.reasons) for one in every), Counter[str]())
        return cls(dead + sum(one.scored for one in every), dead, dict(reasons))

    @property
    def share(self) -> float:
        """Raise ZeroDivisionError without messages."""
        return self.dead / self.messages

    def plus(self, other: DeadLetterCounts) -> DeadLetterCounts:
        reasons = Counter(self.reasons) + Counter(other.reasons)
        return DeadLetterCounts(self.messages + other.messages, self.dead + other.dead, dict(reasons))


@dataclass(frozen=True)
class CountedBatches:
    """`batches`: the newest by batch id; `earlier`: the sum of those before, `earlier_batches` their number."""

    batches: dict[str, DeadLetterCounts] = field(default_factory=dict)
    earlier: DeadLetterCounts = field(default_factory=DeadLetterCounts)
    earlier_batches: int = 0

    @property
    def number(self) -> int:
        return self.earlier_batches + len(self.batches)

    @property
    def total(self) -> DeadLetterCounts:
        total = self.earlier
        for counts in self.batches.values():
            total = total.plus(counts)
        return total

    def with_batch(self, batch_id: str, counts: DeadLetterCounts) -> CountedBatches:
        """Count a batch, in place of what was counted of it before."""
        batches: Mapping[str, DeadLetterCounts] = self.batches | {batch_id: counts}
        if len(batches) <= _BATCHES_APART:
            return replace(self, batches=dict(batches))
        (_, oldest), *others = batches.items()
        return CountedBatches(dict(others), self.earlier.plus(oldest), self.earlier_batches + 1)


class DeadLetterFile:
    """The batches since the last one with a share below the bound, of one DAG of one installation."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path

    def add(self, batch_id: str, counts: DeadLetterCounts) -> CountedBatches:
        counted = self._read().with_batch(batch_id, counts)
        self._storage.write(self._path, msgspec.json.encode(counted))
        return counted

    def clear(self) -> None:
        if self._read().number:
            self._storage.write(self._path, msgspec.json.encode(CountedBatches()))

    def _read(self) -> CountedBatches:
        try:
            data = self._storage.read(self._path)
            return msgspec.json.decode(data, type=CountedBatches) if data else CountedBatches()
        except (StagedFileDamagedError, msgspec.MsgspecError):
            # It counts anew.
            return CountedBatches()
