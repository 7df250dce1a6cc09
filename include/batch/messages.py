"""Build the messages to publish for a partition: its staged rows with their predictions, in the order of the topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from include.batch import chunks
from include.batch.dead_letters import DeadLetters
from include.batch.manifest import Manifest
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.errors import StagingError
from include.kafka.headers import Headers
from include.kafka.transaction import OutgoingMessage
from include.payments.encode import scored_value
from include.settings import Settings
from include.storage.staging import Storage


@dataclass(frozen=True)
class OutgoingMessages:
    """The messages of one partition: scored payments for the output topic, dead letters for the dead-letter topic.

    Each iteration reads the chunks again, one after the other, so that memory holds one chunk at a time.
    """

    settings: Settings
    storage: Storage
    manifest: Manifest
    scored_batch: ScoredBatch
    scored_part: ScoredPartition

    def __iter__(self) -> Iterator[OutgoingMessage]:
        """Yield the messages. Raise StagingError if a chunk cannot be read, or has other rows than were counted."""
        batch: Headers = [("batch_id", self.manifest.batch_id.encode())]
        common = self._common_headers(batch)
        partition = f"{self.manifest.topic}/{self.scored_part.part.partition}/"
        output_topic, dead_letter_topic = self.settings.output_topic, self.settings.dead_letter_topic
        first_row = ("row", b"0")
        for number, payments, predictions in self._chunks():
            # Many payments have the same probability, so each is formatted once.
            probabilities = {value: repr(value).encode() for value in set(predictions["probability"])}
            read = partial(self._read, number, ("value", "headers"))
            dead_letters = DeadLetters(payments["offset"], payments["row"], predictions["reason"], read)
            rows = zip(*payments.values(), *predictions.values(), strict=False)
            for index, (offset, row, key, head, tail, prediction, probability, reason) in enumerate(rows):
                source = ("source", f"{partition}{offset}".encode())
                if reason is not None:
                    value, headers = dead_letters.content(index, source)
                    yield dead_letter_topic, key, value, headers + batch
                    continue
                headers = [*common, source, ("row", b"%d" % row) if row else first_row]
                if probability is not None:
                    headers.append(("fraud_probability", probabilities[probability]))
                yield output_topic, key, scored_value(head, tail, prediction), headers

    def _common_headers(self, batch: Headers) -> Headers:
        model = self.scored_batch.model
        headers: Headers = [("model_run_id", model["run_id"].encode())]
        if model.get("name"):
            headers += [("model_name", model["name"].encode()), ("model_version", str(model["version"]).encode())]
        return [*headers, *batch, ("scored_at", self.scored_batch.scored_at.encode())]

    def _chunks(self) -> Iterator[tuple[int, dict[str, list[Any]], dict[str, list[Any]]]]:
        """Yield the number of each chunk, its payments and their predictions."""
        left = self.scored_part.scored + self.scored_part.dead_letters
        for number in range(self.scored_part.part.chunks):
            payments, predictions = self._chunk(number)
            left -= len(predictions["reason"])
            yield number, payments, predictions
        if left:
            raise StagingError(
                f"{self.scored_part.staged}, partition {self.scored_part.part.partition}: {abs(left)} "
                f"{'fewer' if left > 0 else 'more'} rows are staged than were counted; clear the run's plan task: the "
                "run drains these payments again"
            )

    def _chunk(self, number: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Return a chunk's payments and predictions. The latter are fewer if scoring reached its time limit there."""
        payments = self._read(number, ("offset", "row", "key", "head", "tail"))
        partition = self.scored_part.part.partition
        return payments, chunks.read_predictions(self.storage, self.scored_part.staged, partition, number)

    def _read(self, number: int, names: Sequence[str]) -> dict[str, list[Any]]:
        part = self.scored_part.part
        return chunks.read_payments(self.storage, part.staged, part.partition, number, names)
