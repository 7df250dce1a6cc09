"""What is published of one partition: its staged rows with their predictions, in the order they came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from include.batch import chunks
from include.batch.dead_letters import DeadLetters
from include.batch.manifest import Manifest
from include.batch.scored_batch import PartitionScores, ScoredBatch
from include.errors import StagingError
from include.kafka.headers import Headers
from include.kafka.transaction import OutgoingMessage
from include.payments.encode import scored_value
from include.settings import Settings
from include.storage.staging import Storage


@dataclass(frozen=True)
class OutgoingMessages:
    """Read anew each time, chunk by chunk. Raises StagingError where the files do not make up the batch."""

    settings: Settings
    storage: Storage
    manifest: Manifest
    scored: ScoredBatch
    scores: PartitionScores

    def __iter__(self) -> Iterator[OutgoingMessage]:
        model = self.scored.model
        common: Headers = [("model_run_id", model["run_id"].encode())]
        if model.get("name"):
            common += [("model_name", model["name"].encode()), ("model_version", str(model["version"]).encode())]
        batch: Headers = [("batch_id", self.manifest.batch_id.encode())]
        common += [*batch, ("scored_at", self.scored.scored_at.encode())]
        place = f"{self.manifest.topic}/{self.scores.part.partition}/"
        out, dead = self.settings.output_topic, self.settings.dead_letter_topic
        first_row = ("row", b"0")
        for number, staged, scores in self._chunks():
            # A model knows few probabilities, many payments have the same one.
            chances = {chance: repr(chance).encode() for chance in set(scores["probability"])}
            letters = DeadLetters(
                staged["offset"], staged["row"], scores["reason"], partial(self._read, number, ("value", "headers"))
            )
            rows = zip(*staged.values(), *scores.values(), strict=False)
            for index, (offset, row, key, head, tail, prediction, probability, reason) in enumerate(rows):
                source = ("source", f"{place}{offset}".encode())
                if reason is not None:
                    value, headers = letters.content(index, source)
                    yield dead, key, value, headers + batch
                    continue
                headers = [*common, source, ("row", b"%d" % row) if row else first_row]
                if probability is not None:
                    headers.append(("fraud_probability", chances[probability]))
                yield out, key, scored_value(head, tail, prediction), headers

    def _chunks(self) -> Iterator[tuple[int, dict[str, list[Any]], dict[str, list[Any]]]]:
        """What was staged and the predictions of it, chunk by chunk."""
        due = self.scores.scored + self.scores.dead_letters
        for number in range(self.scores.part.chunks):
            staged, scores = self._chunk(number)
            due -= len(scores["reason"])
            yield number, staged, scores
        if due:
            raise StagingError(
                f"{self.scores.staged}, partition {self.scores.part.partition}: {abs(due)} "
                f"{'fewer' if due > 0 else 'more'} rows are staged than were counted; clear the run's plan task: the "
                "run drains these payments again"
            )

    def _chunk(self, number: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The predictions are of its first rows: of all, unless the batch was cut off here."""
        staged = self._read(number, ("offset", "row", "key", "head", "tail"))
        partition = self.scores.part.partition
        return staged, chunks.read_predictions(self.storage, self.scores.staged, partition, number)

    def _read(self, number: int, names: Sequence[str]) -> dict[str, list[Any]]:
        part = self.scores.part
        return chunks.read_payments(self.storage, part.staged, part.partition, number, names)
