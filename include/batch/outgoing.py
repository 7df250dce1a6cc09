"""What is published of one partition: its staged rows with their predictions, in the order they came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.scored import ScoredBatch
from include.batch.storage import Storage
from include.errors import StagingError
from include.kafka.transaction import Headers, Outgoing
from include.payments.encode import scored_value
from include.settings import Settings


@dataclass(frozen=True)
class OutgoingMessages:
    """Read anew each time, chunk by chunk. Raises StagingError where the files do not make up the batch."""

    settings: Settings
    storage: Storage
    manifest: Manifest
    scored: ScoredBatch
    part: PartitionBatch

    def __iter__(self) -> Iterator[Outgoing]:
        model = self.scored.model
        common: Headers = [("model_run_id", model["run_id"].encode())]
        if model.get("name"):
            common += [("model_name", model["name"].encode()), ("model_version", str(model["version"]).encode())]
        batch: Headers = [("batch_id", self.manifest.batch_id.encode())]
        common += [*batch, ("scored_at", self.scored.scored_at.encode())]
        place = f"{self.manifest.topic}/{self.part.partition}/"
        out, dead = self.settings.output_topic, self.settings.dead_letter_topic
        first_row = ("row", b"0")
        for number, staged, scores in self._chunks():
            # A model knows few probabilities, many payments have the same one.
            chances = {chance: repr(chance).encode() for chance in set(scores["probability"])}
            originals, first = None, 0
            rows = zip(*staged.values(), *scores.values(), strict=False)
            for index, (offset, row, key, head, tail, prediction, probability, reason) in enumerate(rows):
                source = ("source", f"{place}{offset}".encode())
                if reason is None:
                    if row:
                        headers = [*common, source, ("row", b"%d" % row)]
                    else:
                        first = index
                        headers = [*common, source, first_row]
                    if probability is not None:
                        headers.append(("fraud_probability", chances[probability]))
                    yield out, key, scored_value(head, tail, prediction), headers
                    continue
                if not row:
                    first = index
                if originals is None:
                    originals = self._read(number, ("value", "headers"))
                headers = [*chunks.unpack_headers(originals["headers"][first]), ("reason", reason.encode()), source]
                if row is not None:
                    headers.append(("row", b"%d" % row))
                yield dead, key, originals["value"][first], headers + batch

    def _chunks(self) -> Iterator[tuple[int, dict[str, list[Any]], dict[str, list[Any]]]]:
        """What was staged and the predictions of it, chunk by chunk.

        The digests tell a damaged file. These checks tell files of attempts that overtook each other: nobody meant the
        batch that they would make together.
        """
        begin = self.part.start
        (counted,) = (one for one in self.scored.partitions if one.partition == self.part.partition)
        due = counted.scored + counted.dead_letters
        for number in range(self.part.chunks):
            staged, scores = self._chunk(number, begin)
            if count := len(scores["reason"]):
                begin = staged["offset"][count - 1] + 1
            due -= count
            yield number, staged, scores
        if due:
            raise self._other_than(f"{abs(due)} {'fewer' if due > 0 else 'more'} rows are staged than were counted")

    def _chunk(self, number: int, begin: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The predictions are of its first rows: of all, unless the batch was cut off here. None is before `begin`."""
        part = self.part
        staged = self._read(number, ("offset", "row", "key", "head", "tail"))
        scores = chunks.read_predictions(self.storage, self.manifest.folder, part.partition, number)
        rows = len(scores["reason"])
        offset = staged["offset"]
        whole = len(offset)
        if rows != whole and not (number == part.chunks - 1 and rows < whole and offset[rows] == part.end):
            raise self._other_than(f"chunk {number} has {rows} predictions for {whole} rows")
        if rows and not begin <= offset[0] <= offset[rows - 1] < part.end:
            raise self._other_than(
                f"chunk {number} holds offsets from {offset[0]} to {offset[rows - 1]}, not of [{begin}, {part.end})"
            )
        return staged, scores

    def _other_than(self, found: str) -> StagingError:
        return StagingError(
            f"{self.manifest.folder}, partition {self.part.partition}: {found}; clear the run's drain task: it drains "
            "these payments again"
        )

    def _read(self, number: int, names: Sequence[str]) -> dict[str, list[Any]]:
        return chunks.read_payments(self.storage, self.manifest.folder, self.part.partition, number, names)
