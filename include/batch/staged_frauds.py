"""Read a batch's frauds from its staged chunks, for its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.batch import chunks
from include.batch.scored_batch import ScoredPartition
from include.payments.encode import scored_object
from include.report.fraud import Fraud
from include.storage.staging import Storage


@dataclass(frozen=True)
class StagedFrauds:
    """The frauds of some partitions of a batch. Each iteration reads them from the staged chunks again."""

    storage: Storage
    topic: str
    partitions: list[ScoredPartition]

    def __iter__(self) -> Iterator[Fraud]:
        """Yield the frauds in the order of partitions and offsets. Raise StagingError if a chunk cannot be read."""
        for part, folder in ((one.part, one.staged) for one in self.partitions):
            for number in range(part.chunks):
                predictions = chunks.read_predictions(self.storage, folder, part.partition, number)
                frauds = [index for index, prediction in enumerate(predictions["prediction"]) if prediction == 1]
                if not frauds:
                    continue
                names = ("offset", "row", "head", "tail")
                payments = chunks.read_payments(self.storage, part.staged, part.partition, number, names)
                for index in frauds:
                    yield Fraud(
                        source=f"{self.topic}/{part.partition}/{payments['offset'][index]}",
                        row=payments["row"][index],
                        probability=predictions["probability"][index],
                        record=scored_object(payments["head"][index], payments["tail"][index], 1),
                    )
