"""Step 3: scores the staged payments, chunk by chunk, and stages the predictions beside them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.outbox import Outbox
from include.batch.scored import PartitionScores, ScoredBatch
from include.batch.storage import Storage
from include.models.resolve import ModelRun
from include.payments.encode import unscored_object
from include.settings import Settings

if TYPE_CHECKING:
    from include.models.load import LoadedModel


def predict(settings: Settings, storage: Storage, manifest: Manifest, run: ModelRun) -> ScoredBatch:
    """A batch without a payment to score needs no model. One whose publishing has begun is not scored again: its
    report, and what is still to be published of it, must say what readers see already."""
    if Outbox(storage, manifest.group, manifest.topic).has_begun(manifest):
        return ScoredBatch.load(storage, manifest.folder)
    # With the columns, which the XCom does without.
    manifest = Manifest.load(storage, manifest.batch_id)
    model = _load(settings, run) if manifest.payments else None
    reasons: Counter[str] = Counter()
    with chunks.paused_collector():
        parts = tuple(_predict_partition(storage, manifest, part, model, reasons) for part in manifest.partitions)
    scored = ScoredBatch(run.to_dict(), datetime.now(UTC).isoformat(timespec="milliseconds"), parts, dict(reasons))
    scored.save(storage, manifest.folder)
    return scored


def _load(settings: Settings, run: ModelRun) -> LoadedModel:
    # MLflow, pandas and scikit-learn take seconds to import: only where there is something to score.
    from include.models.cache import ModelCache
    from include.models.load import load

    cache = ModelCache(settings.model_cache, int(settings.model_cache_gb * 1e9))
    return load(run, cache.fetch(run))


def _predict_partition(
    storage: Storage, manifest: Manifest, part: PartitionBatch, model: LoadedModel | None, reasons: Counter[str]
) -> PartitionScores:
    scored = frauds = dead_letters = 0
    for number in range(part.chunks):
        staged = chunks.read_payments(storage, manifest.folder, part.partition, number, ("head", "tail", "reason"))
        reason: list[str | None] = staged["reason"]
        prediction: list[int | None] = [None] * len(reason)
        probability: list[float | None] = [None] * len(reason)
        places = [place for place, text in enumerate(reason) if text is None]
        if places and model is not None:
            from include.models.score import score

            heads, tails = staged["head"], staged["tail"]
            payments = [unscored_object(heads[place], tails[place]) for place in places]
            result = score(model, payments, columns=manifest.columns)
            labels, chances = result.prediction.tolist(), result.probability.tolist()
            for index, place in enumerate(places):
                refusal = result.refusals.get(index)
                if refusal is not None:
                    reason[place] = str(refusal)
                    continue
                prediction[place] = labels[index]
                chance = chances[index]
                probability[place] = chance if chance == chance else None
        chunks.write_predictions(
            storage,
            manifest.folder,
            part.partition,
            number,
            prediction=prediction,
            probability=probability,
            reason=reason,
        )
        refused = [text.partition(":")[0] for text in reason if text is not None]
        reasons.update(refused)
        dead_letters += len(refused)
        scored += len(reason) - len(refused)
        frauds += prediction.count(1)
    return PartitionScores(part.partition, scored, frauds, dead_letters)
