"""Step `predict`: score the staged payments, and stage the predictions beside them, until the time limit.

Payments that are not scored in time are cut off the batch, and the next run drains them again. Otherwise a run with a
slow model or a large batch would fail, and so would every run after it.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include.batch import chunks
from include.batch.chunk_groups import PaymentChunk, read_chunk_groups, read_offsets
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.errors import StagedFileGoneError
from include.models.description import Description
from include.models.model_run import ModelRun
from include.settings import Settings
from include.storage.staging import Storage

if TYPE_CHECKING:
    from include.models.load import LoadedModel

log = logging.getLogger(__name__)

# How many payments the model scores in one call: first so many, then as many as it scores in these seconds.
_FIRST_PAYMENTS = 2_000
_CALL_SECONDS = 5.0
_MIN_PAYMENTS = 50
_MAX_PAYMENTS = 100_000


def predict(settings: Settings, storage: Storage, manifest: Manifest, run: ModelRun, shard: int = 0) -> ScoredBatch:
    """Score one shard until FRAUD_MAX_SECONDS, save what was found, and return it.

    Without a payment to score, the model is not loaded. Once publishing has begun, return what was saved before: the
    report, and what is still to be published, must agree with the messages that are published already.

    Raise ModelInputError before anything is scored if the model requires a column that no payment of the batch has:
    otherwise all payments would become dead letters. Raise another ModelError if the model cannot score at all.
    """
    began = time.monotonic()
    manifest = Manifest.load(storage, manifest.batch_id)
    if ScoredBatch.publishing_has_begun(storage, manifest.folder):
        try:
            return ScoredBatch.load_shard(storage, manifest.folder, shard)
        except StagedFileGoneError:
            # Other shards are published, but this one is not scored: a person set its failed task to success and has
            # cleared it now, or its scores are lost. A batch has one model, so this shard gets that of the others.
            run = ModelRun.from_dict(ScoredBatch.load(storage, manifest).model)
    parts = manifest.shard_partitions(shard) if manifest.shards else manifest.partitions
    model = _load(settings, run) if any(part.payments for part in parts) else None
    if model is not None:
        # Here and not in resolve_model, which runs beside drain and does not know the columns: see docs/models.md.
        Description.from_folder(model.folder).check_columns(manifest.columns)
    with chunks.paused_collector():
        scoring = _ShardScoring(storage, manifest, parts, model, time.monotonic() + settings.max_seconds)
        partitions = scoring.run()
    left = sum(part.end for part in parts) - sum(one.part.end for one in partitions)
    if left:
        log.info("%d offsets are left for the next run: scoring ended after %g seconds", left, settings.max_seconds)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    reasons = sum((Counter(one.reasons) for one in partitions), Counter[str]())
    seconds = round(time.monotonic() - began, 3)
    scored = ScoredBatch(run.to_dict(), now, partitions, dict(reasons), seconds)
    scored.save(storage, manifest.folder, shard)
    return scored


def _load(settings: Settings, run: ModelRun) -> LoadedModel:
    # Imported only if there is something to score: MLflow, pandas and scikit-learn take seconds.
    from include.models.load import load
    from include.models.model_cache import ModelCache

    return load(run, ModelCache.from_settings(settings).fetch(run), allow_pickles=settings.allow_pickles)


@dataclass
class _Predictions:
    """What the model returned for the payments of a group, in order: None where `refusals` has the reason."""

    labels: list[int | None] = field(default_factory=list)
    probabilities: list[float | None] = field(default_factory=list)
    refusals: dict[int, str] = field(default_factory=dict)

    def of_chunk(
        self, chunk: PaymentChunk, begin: int, count: int
    ) -> tuple[list[int | None], list[float | None], list[str | None]]:
        """Return label, probability and reason for each row of a chunk.

        The chunk's first `count` payments are scored; the first of them is the group's payment number `begin`.
        """
        labels, probabilities = self.labels[begin : begin + count], self.probabilities[begin : begin + count]
        reasons = list(chunk.reasons)
        for index, refusal in self.refusals.items():
            if begin <= index < begin + count:
                reasons[chunk.row_indices[index - begin]] = refusal
        rows = len(reasons)
        if count == rows:
            return labels, probabilities, reasons
        row_labels: list[int | None] = [None] * rows
        row_probabilities: list[float | None] = [None] * rows
        for index, label, probability in zip(chunk.row_indices, labels, probabilities, strict=False):
            row_labels[index], row_probabilities[index] = label, probability
        return row_labels, row_probabilities, reasons


class _ShardScoring:
    """Score the chunks of a shard's partitions. `deadline` is by time.monotonic()."""

    def __init__(
        self,
        storage: Storage,
        manifest: Manifest,
        parts: Sequence[PartitionBatch],
        model: LoadedModel | None,
        deadline: float,
    ) -> None:
        self._storage = storage
        self._columns = manifest.columns
        self._folder = manifest.new_attempt_folder()
        self._parts = parts
        self._model = model
        self._deadline = deadline
        self._payments_per_call = _FIRST_PAYMENTS
        self._counts: dict[int, Counter[str]] = {part.partition: Counter() for part in parts}
        self._reasons: dict[int, Counter[str]] = {part.partition: Counter() for part in parts}
        # Partitions that are cut off, with the offset of the first message that is not scored.
        self._cut_at: dict[int, int] = {}

    def run(self) -> tuple[ScoredPartition, ...]:
        """Score and stage group by group until the deadline, and return the counts of each partition."""
        for group in read_chunk_groups(self._storage, self._parts):
            predictions, begin = self._score(group), 0
            for chunk in group:
                count = min(len(predictions.labels) - begin, len(chunk.payments))
                self._stage(chunk, count, *predictions.of_chunk(chunk, begin, count))
                begin += count
            if time.monotonic() > self._deadline:
                break
        return tuple(self._scored_partition(part) for part in self._parts)

    def _scored_partition(self, part: PartitionBatch) -> ScoredPartition:
        counts = self._counts[part.partition]
        end = self._cut_at.get(part.partition)
        if end is None and counts["chunks"] < part.chunks:
            end = self._first_offset(part, counts["chunks"])
        if end is not None:
            # The time of the last message before the cut is not known.
            part = replace(part, end=end, chunks=counts["chunks"], newest=None)
        scored, frauds, dead_letters = (counts[name] for name in ("scored", "frauds", "dead_letters"))
        return ScoredPartition(part, self._folder, scored, frauds, dead_letters, dict(self._reasons[part.partition]))

    def _first_offset(self, part: PartitionBatch, number: int) -> int:
        """Return the offset of a chunk's first message; for the first chunk, the start of the partition's range."""
        return part.start if number == 0 else read_offsets(self._storage, part, number)[0]

    def _score(self, group: Sequence[PaymentChunk]) -> _Predictions:
        """Score the payments of a group in order: all of them, or as many as time allows."""
        predictions = _Predictions()
        payments = [payment for chunk in group for payment in chunk.payments]
        if self._model is None or not payments:
            return predictions
        from include.models.scoring import score

        done = 0
        while done < len(payments) and not self._must_stop(group, done):
            began = time.monotonic()
            some = payments[done : done + self._payments_per_call]
            result = score(self._model, some, columns=self._columns)
            predictions.labels += result.prediction.tolist()
            predictions.probabilities += [None if math.isnan(value) else value for value in result.probability.tolist()]
            for index, refusal in result.refusals.items():
                predictions.labels[done + index] = None
                predictions.refusals[done + index] = str(refusal)
            done += len(some)
            per_second = len(some) / max(time.monotonic() - began, 1e-3)
            self._payments_per_call = max(_MIN_PAYMENTS, min(_MAX_PAYMENTS, int(per_second * _CALL_SECONDS)))
        return predictions

    def _must_stop(self, group: Sequence[PaymentChunk], done: int) -> bool:
        """Return whether time is over and at least one whole message is scored, so that each run makes progress."""
        if not done or time.monotonic() < self._deadline:
            return False
        if any(counts["chunks"] for counts in self._counts.values()):
            return True
        first = next(chunk for chunk in group if chunk.payments)
        if done >= len(first.payments):
            return True
        offsets = read_offsets(self._storage, first.part, first.number)
        return offsets[first.row_indices[done]] != offsets[0]

    def _stage(
        self,
        chunk: PaymentChunk,
        count: int,
        labels: list[int | None],
        probabilities: list[float | None],
        reasons: list[str | None],
    ) -> None:
        """Write the predictions of a chunk: of all rows, or of those before the first message not scored whole."""
        part = chunk.part
        if part.partition in self._cut_at:
            return
        rows = len(reasons)
        if count < len(chunk.payments):
            offsets = read_offsets(self._storage, part, chunk.number)
            self._cut_at[part.partition] = cut = offsets[chunk.row_indices[count]]
            rows = bisect_left(offsets, cut)
            if not rows:
                return
        labels, reasons = labels[:rows], reasons[:rows]
        chunks.write_predictions(
            self._storage,
            self._folder,
            part.partition,
            chunk.number,
            prediction=labels,
            probability=probabilities[:rows],
            reason=reasons,
        )
        refused = [reason.partition(":")[0] for reason in reasons if reason is not None]
        self._reasons[part.partition].update(refused)
        self._counts[part.partition].update(
            chunks=1, dead_letters=len(refused), scored=rows - len(refused), frauds=labels.count(1)
        )
