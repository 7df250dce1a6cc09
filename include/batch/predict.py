"""Step 3: scores the staged payments and stages the predictions beside them, as far as its time reaches.

A model that is slow, or a batch that is large, must not fail with each try anew: what was not scored in time is cut off
the batch, and the next run drains it again.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.scored_batch import PartitionScores, ScoredBatch
from include.errors import StagedFileGoneError
from include.models.description import Description
from include.models.model_run import ModelRun
from include.payments.encode import unscored_object
from include.settings import Settings
from include.storage.staging import Storage

if TYPE_CHECKING:
    from include.models.load import LoadedModel

log = logging.getLogger(__name__)

# A model is asked for many payments at once, but not for more than a few seconds' worth.
_AT_ONCE = 50_000
_HELD_BYTES = chunks.HELD_BYTES
_FIRST = 2_000
_FEWEST = 50
_ASKED_SECONDS = 5.0


def predict(settings: Settings, storage: Storage, manifest: Manifest, run: ModelRun, shard: int = 0) -> ScoredBatch:
    """Score one shard's payments and return what was found. Raise ModelInputError if the model requires columns that no
    payment of the batch has, before any is scored.

    A batch without a payment to score needs no model. One whose publishing has begun is not scored again: its
    report, and what is still to be published of it, must say what readers see already."""
    began = time.monotonic()
    manifest = Manifest.load(storage, manifest.batch_id)
    if ScoredBatch.has_begun(storage, manifest.folder):
        try:
            return ScoredBatch.load_shard(storage, manifest.folder, shard)
        except StagedFileGoneError:
            # Other shards are published already: one batch, one model.
            run = ModelRun.from_dict(ScoredBatch.load(storage, manifest).model)
    parts = manifest.of_shard(shard) if manifest.shards else manifest.partitions
    model = _load(settings, run) if any(part.payments for part in parts) else None
    if model is not None:
        # Before a payment is scored: none must become a dead letter for a column that all of them lack.
        Description.from_folder(model.folder).check_columns(manifest.columns)
    with chunks.paused_collector():
        scoring = _Prediction(storage, manifest, parts, model, time.monotonic() + settings.max_seconds)
        counts = scoring.run()
    left = sum(part.end for part in parts) - sum(counted.part.end for counted in counts)
    if left:
        log.info("%d offsets are left for the next run: scoring ended after %g seconds", left, settings.max_seconds)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    reasons = sum((Counter(counted.reasons) for counted in counts), Counter[str]())
    seconds = round(time.monotonic() - began, 3)
    scored = ScoredBatch(run.to_dict(), now, counts, dict(reasons), seconds)
    scored.save(storage, manifest.folder, shard)
    return scored


def _load(settings: Settings, run: ModelRun) -> LoadedModel:
    # MLflow, pandas and scikit-learn take seconds to import: only where there is something to score.
    from include.models.load import load
    from include.models.model_cache import ModelCache

    return load(run, ModelCache.from_settings(settings).fetch(run), allow_pickles=settings.allow_pickles)


@dataclass(frozen=True)
class _PredictedChunk:
    """`reason` by row; `places` are the rows without one, which the model is asked for."""

    part: PartitionBatch
    number: int
    payments: list[bytes]
    places: list[int]
    reason: list[str | None]


@dataclass
class _Answers:
    """The model's, payment by payment; None where `refusals` has the reason."""

    labels: list[int | None] = field(default_factory=list)
    chances: list[float | None] = field(default_factory=list)
    refusals: dict[int, str] = field(default_factory=dict)

    def rows(self, chunk: _PredictedChunk, begin: int, count: int) -> tuple[list[int | None], list[float | None]]:
        """Those of the chunk's first `count` payments as its rows have them; its `reason` gets the refusals."""
        labels, chances = self.labels[begin : begin + count], self.chances[begin : begin + count]
        refused = [index for index in self.refusals if begin <= index < begin + count]
        for index in refused:
            chunk.reason[chunk.places[index - begin]] = self.refusals[index]
        if count == len(chunk.reason):
            return labels, chances
        by_row: tuple[list[int | None], list[float | None]] = [None] * len(chunk.reason), [None] * len(chunk.reason)
        for place, label, chance in zip(chunk.places, labels, chances, strict=False):
            by_row[0][place], by_row[1][place] = label, chance
        return by_row


class _Prediction:
    def __init__(
        self,
        storage: Storage,
        manifest: Manifest,
        parts: Sequence[PartitionBatch],
        model: LoadedModel | None,
        until: float,
    ) -> None:
        self._storage = storage
        self._columns = manifest.columns
        self._staged = manifest.new_attempt()
        self._parts = parts
        self._model = model
        self._until = until
        self._at_once = _FIRST
        self._counts: dict[int, Counter[str]] = {part.partition: Counter() for part in parts}
        self._reasons: dict[int, Counter[str]] = {part.partition: Counter() for part in parts}
        self._ends: dict[int, int] = {}

    def run(self) -> tuple[PartitionScores, ...]:
        for group in self._groups():
            answers, begin = self._ask(group), 0
            for chunk in group:
                count = min(len(answers.labels) - begin, len(chunk.places))
                self._stage(chunk, count, *answers.rows(chunk, begin, count))
                begin += count
            if time.monotonic() > self._until:
                break
        return tuple(self._partition(part) for part in self._parts)

    def _partition(self, part: PartitionBatch) -> PartitionScores:
        counts = self._counts[part.partition]
        chunks_scored = counts["chunks"]
        end = self._ends.get(part.partition)
        if end is None and chunks_scored < part.chunks:
            end = self._start_of(part, chunks_scored)
        if end is not None:
            # When the last one of these was written, nobody has noted.
            part = replace(part, end=end, chunks=chunks_scored, newest=None)
        scored, frauds, dead_letters = (counts[name] for name in ("scored", "frauds", "dead_letters"))
        return PartitionScores(part, self._staged, scored, frauds, dead_letters, dict(self._reasons[part.partition]))

    def _start_of(self, part: PartitionBatch, number: int) -> int:
        """Where a chunk begins that was not scored. Offsets before the first chunk's hold nothing to publish."""
        if number == 0:
            return part.start
        return int(self._read(part, number, ("offset",))["offset"][0])

    def _groups(self) -> Iterator[list[_PredictedChunk]]:
        """Chunks that are scored together. Each partition in turn, first those that have waited longest: none is left
        behind for good where the time never reaches for all."""
        in_turn = sorted(self._parts, key=lambda part: (part.oldest or 0, part.partition))
        most = max((part.chunks for part in self._parts), default=0)
        group: list[_PredictedChunk] = []
        held = rows = 0
        for number in range(most):
            for part in in_turn:
                if number < part.chunks:
                    group.append(chunk := self._chunk(part, number))
                    held += sum(map(len, chunk.payments))
                    # Of all rows: dead letters are held as well, though the model is not asked for them.
                    rows += len(chunk.reason)
                    if held >= _HELD_BYTES or rows >= _AT_ONCE:
                        yield group
                        group, held, rows = [], 0, 0
        if group:
            yield group

    def _chunk(self, part: PartitionBatch, number: int) -> _PredictedChunk:
        staged = self._read(part, number, ("head", "tail", "reason"))
        heads, tails, reason = staged["head"], staged["tail"], staged["reason"]
        places = [place for place, text in enumerate(reason) if text is None]
        payments = [unscored_object(heads[place], tails[place]) for place in places]
        return _PredictedChunk(part, number, payments, places, reason)

    def _read(self, part: PartitionBatch, number: int, names: Sequence[str]) -> dict[str, list[Any]]:
        return chunks.read_payments(self._storage, part.staged, part.partition, number, names)

    def _ask(self, group: Sequence[_PredictedChunk]) -> _Answers:
        """Of the group's payments one after the other: all, or as many as the time is enough for."""
        answers = _Answers()
        payments = [payment for chunk in group for payment in chunk.payments]
        if self._model is None or not payments:
            return answers
        from include.models.scoring import score

        done = 0
        while done < len(payments) and not self._is_enough(group, done):
            began = time.monotonic()
            asked = payments[done : done + self._at_once]
            result = score(self._model, asked, columns=self._columns)
            answers.labels += result.prediction.tolist()
            answers.chances += [chance if chance == chance else None for chance in result.probability.tolist()]
            for index, refusal in result.refusals.items():
                answers.labels[done + index] = None
                answers.refusals[done + index] = str(refusal)
            done += len(asked)
            speed = len(asked) / max(time.monotonic() - began, 1e-3)
            self._at_once = max(_FEWEST, min(2 * _AT_ONCE, int(speed * _ASKED_SECONDS)))
        return answers

    def _is_enough(self, group: Sequence[_PredictedChunk], done: int) -> bool:
        """Out of time, with something done: each run gets on by one message at least, however many rows it has."""
        if not done or time.monotonic() < self._until:
            return False
        if any(counts["chunks"] for counts in self._counts.values()):
            return True
        first = next(chunk for chunk in group if chunk.places)
        if done >= len(first.places):
            return True
        offset = self._read(first.part, first.number, ("offset",))["offset"]
        return bool(offset[first.places[done]] != offset[0])

    def _stage(
        self, chunk: _PredictedChunk, count: int, prediction: list[int | None], probability: list[float | None]
    ) -> None:
        """Writes a chunk's predictions: all rows, or those before the first message that was not scored to its end."""
        part = chunk.part
        if part.partition in self._ends:
            return
        rows = len(chunk.reason)
        if count < len(chunk.places):
            offset = self._read(part, chunk.number, ("offset",))["offset"]
            self._ends[part.partition] = offset[chunk.places[count]]
            rows = bisect_left(offset, offset[chunk.places[count]])
            if not rows:
                return
        reason, prediction = chunk.reason[:rows], prediction[:rows]
        chunks.write_predictions(
            self._storage,
            self._staged,
            part.partition,
            chunk.number,
            prediction=prediction,
            probability=probability[:rows],
            reason=reason,
        )
        refused = [text.partition(":")[0] for text in reason if text is not None]
        self._reasons[part.partition].update(refused)
        self._counts[part.partition].update(
            chunks=1, dead_letters=len(refused), scored=rows - len(refused), frauds=prediction.count(1)
        )
