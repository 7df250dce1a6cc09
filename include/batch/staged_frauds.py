"""Read a batch's frauds from its staged chunks, for its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.batch import chunks
from include.batch.scored_batch import PartitionScores
from include.payments.encode import scored_object
from include.report.fraud import Fraud
from include.storage.staging import Storage


@dataclass(frozen=True)
class StagedFrauds:
    """The frauds of some partitions, read from their staged chunks anew each time."""

    storage: Storage
    topic: str
    partitions: list[PartitionScores]

    def __iter__(self) -> Iterator[Fraud]:
        for part, folder in ((scores.part, scores.staged) for scores in self.partitions):
            for number in range(part.chunks):
                scores = chunks.read_predictions(self.storage, folder, part.partition, number)
                frauds = [place for place, prediction in enumerate(scores["prediction"]) if prediction == 1]
                if not frauds:
                    continue
                names = ("offset", "row", "head", "tail")
                staged = chunks.read_payments(self.storage, part.staged, part.partition, number, names)
                for place in frauds:
                    yield Fraud(
                        source=f"{self.topic}/{part.partition}/{staged['offset'][place]}",
                        row=staged["row"][place],
                        probability=scores["probability"][place],
                        record=scored_object(staged["head"][place], staged["tail"][place], 1),
                    )
