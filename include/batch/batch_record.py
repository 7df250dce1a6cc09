"""What the ledger is told of a batch: `records/<day>/<batch>-<8 hex>.json`, one more file each time that more is known.

Scoring never asks the ledger, whose database may be down. Each file says all that is known by then, so whoever takes
them over needs none of the others, nor the batch's own folder. A batch of which nothing was committed has none.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

import msgspec

from include.batch.manifest import Manifest
from include.batch.scored_batch import PartitionScores, ScoredBatch
from include.errors import StagedFileDamagedError
from include.models.model_run import ModelRun
from include.report.report import ReportDelivery
from include.storage.staging import Storage, decode

log = logging.getLogger(__name__)

FOLDER = "records"
_READERS = 16
_Kind = TypeVar("_Kind")


class PartitionRecord(msgspec.Struct, frozen=True):
    """`drained`: payments and dead letters as they were read, more than came out where the run's time was over.
    `delivery` is of the report that told of this partition."""

    partition: int
    start: int
    end: int
    drained: int
    scored: int
    frauds: int
    dead_letters: int
    lost: int
    delivery: ReportDelivery | None = None


class BatchRecord(msgspec.Struct, frozen=True):
    """The partitions that were committed, and no others. `marks`: how many of them were committed, and how many
    reported; of two records of one batch, that with more marks was written later. `seconds` by step, where known."""

    batch_id: str
    run_id: str
    run_url: str
    group: str
    topic: str
    topic_id: str
    drained_at: datetime
    scored_at: datetime
    model: ModelRun
    partitions: tuple[PartitionRecord, ...]
    reasons: dict[str, int]
    seconds: dict[str, float]
    marks: int

    @property
    def deliveries(self) -> list[ReportDelivery]:
        """Each mail once, in the order they went out."""
        found = {part.delivery.message_id: part.delivery for part in self.partitions if part.delivery}
        return sorted(found.values(), key=lambda delivery: delivery.at)


class StepTimes(msgspec.Struct, frozen=True):
    """What a step took, as the files say that it leaves; `committed-<partition>` is this alone."""

    seconds: float | None = None


def write_record(
    storage: Storage,
    manifest: Manifest,
    scored: ScoredBatch,
    committed: Collection[int],
    deliveries: Mapping[int, ReportDelivery | None],
) -> None:
    """By the day of writing: a mail may go out long after its batch, and has as long to be taken over. `deliveries` by
    reported partition."""
    record = _record(storage, manifest, scored, committed, deliveries)
    path = f"{FOLDER}/{datetime.now(UTC):%Y%m%d}/{record.batch_id}-{uuid4().hex[:8]}.json"
    storage.write(path, msgspec.json.encode(record))


def _record(
    storage: Storage,
    manifest: Manifest,
    scored: ScoredBatch,
    committed: Collection[int],
    deliveries: Mapping[int, ReportDelivery | None],
) -> BatchRecord:
    found = [scores for scores in scored.due if scores.part.partition in committed]
    model = ModelRun.from_dict(scored.model)
    marks = [f"{manifest.folder}/committed-{number}" for number in committed]
    drained = [f"{manifest.folder}/drained-{shard}.json" for shard in range(len(manifest.shards))]
    read = _longest(_read_all(storage, drained, StepTimes))
    seconds = {
        "drain": None if read is None else round(read + (manifest.seconds or 0), 3),
        "resolve_model": model.seconds,
        "predict": scored.seconds,
        "publish": _longest(_read_all(storage, marks, StepTimes)),
        "email": _longest(deliveries.values()),
    }
    return BatchRecord(
        batch_id=manifest.batch_id,
        run_id=manifest.run_id,
        run_url=manifest.run_url,
        group=manifest.group,
        topic=manifest.topic,
        topic_id=manifest.topic_id,
        drained_at=datetime.fromisoformat(manifest.drained_at),
        scored_at=datetime.fromisoformat(scored.scored_at),
        model=model,
        partitions=tuple(_partition(scores, deliveries.get(scores.part.partition)) for scores in found),
        reasons=dict(sum((Counter(scores.reasons) for scores in found), Counter[str]())),
        seconds={step: taken for step, taken in seconds.items() if taken is not None},
        marks=len(committed) + len(deliveries),
    )


def _partition(scores: PartitionScores, delivery: ReportDelivery | None) -> PartitionRecord:
    part = scores.part
    return PartitionRecord(
        partition=part.partition,
        start=part.start,
        end=part.end,
        drained=part.payments + part.dead_letters,
        scored=scores.scored,
        frauds=scores.frauds,
        dead_letters=scores.dead_letters,
        lost=part.lost,
        delivery=delivery,
    )


def _longest(found: Iterable[StepTimes | ReportDelivery | None]) -> float | None:
    """Of what ran side by side; None where none is known."""
    return max((one.seconds for one in found if one is not None and one.seconds is not None), default=None)


def _read_all(storage: Storage, paths: list[str], kind: type[_Kind]) -> list[_Kind | None]:
    """Side by side: each is a request on S3."""
    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(lambda path: read_known(storage, path, kind), paths))


def read_known(storage: Storage, path: str, kind: type[_Kind]) -> _Kind | None:
    """None where it will never be known: marks of an earlier version are empty, and a damaged file stays damaged."""
    try:
        data = storage.read(path)
        return decode(data, kind) if data else None
    except (StagedFileDamagedError, msgspec.DecodeError) as error:
        log.warning("the record of a batch goes without what %s says: %s", path, error)
        return None
