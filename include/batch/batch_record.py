"""Write what the ledger records about a batch: `records/<day>/<batch>-<8 hex digits>.json` in the staging area.

Scoring never asks the ledger, whose database may be down. The outbox writes a file when the batch can commit nothing
more, and a further one after each delivery of a report. Each file says all that is known by then, so the ledger needs
neither the earlier files nor the batch's folder. A batch that has committed nothing has no record. Field names are keys
of the files.
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
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.errors import StagedFileDamagedError
from include.models.model_run import ModelRun
from include.report.report import ReportDelivery
from include.storage.staging import Storage, decode

log = logging.getLogger(__name__)

RECORDS_FOLDER = "records"
_READ_THREADS = 16
_Kind = TypeVar("_Kind")


class PartitionRecord(msgspec.Struct, frozen=True):
    """A committed partition: the offsets `[start, end)` and the counts of what they held.

    `drained` counts the payments and dead letters that were read; some of them may have been left for a later run by
    `predict`'s time limit. `lost` counts offsets that expired unread. `delivery` is that of the partition's report.
    """

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
    """A batch and its committed partitions.

    `drained_at` is when the batch was planned: the key is older than the step `plan`. `reasons` counts dead letters by
    reason code. `seconds` has the durations of the tasks drain, resolve_model, predict, publish and email, where they
    are known: of several shards or reports the longest, and drain's with that of plan. `marks` counts committed and
    reported partitions: of two records of a batch, the one with more marks was written later.
    """

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
        """Return the delivery of each report, in the order of their times."""
        found = {part.delivery.message_id: part.delivery for part in self.partitions if part.delivery}
        return sorted(found.values(), key=lambda delivery: delivery.at)


class StepDuration(msgspec.Struct, frozen=True):
    """How long a task took. This is all of a file `committed-<partition>`, and one field of `drained-<shard>.json`."""

    seconds: float | None = None


def write_record(
    storage: Storage,
    manifest: Manifest,
    scored: ScoredBatch,
    committed: Collection[int],
    deliveries: Mapping[int, ReportDelivery | None],
) -> None:
    """Write what is known of a batch: its committed partitions, and the deliveries by reported partition.

    `<day>` in the path is the day of writing, because records are removed by that day (`cleaning`). A record that is
    written after a late mail stays as long as any other, so the ledger has the same time to read it. Raise StagingError
    if it cannot be written.
    """
    record = _build(storage, manifest, scored, committed, deliveries)
    path = f"{RECORDS_FOLDER}/{datetime.now(UTC):%Y%m%d}/{record.batch_id}-{uuid4().hex[:8]}.json"
    storage.write(path, msgspec.json.encode(record))


def _build(
    storage: Storage,
    manifest: Manifest,
    scored: ScoredBatch,
    committed: Collection[int],
    deliveries: Mapping[int, ReportDelivery | None],
) -> BatchRecord:
    partitions = [one for one in scored.to_publish if one.part.partition in committed]
    model = ModelRun.from_dict(scored.model)
    drained = _longest(_read_durations(storage, manifest, "drained-{}.json", range(len(manifest.shards))))
    seconds = {
        "drain": None if drained is None else round(drained + (manifest.seconds or 0), 3),
        "resolve_model": model.seconds,
        "predict": scored.seconds,
        "publish": _longest(_read_durations(storage, manifest, "committed-{}", committed)),
        "email": _longest(deliveries.values()),
    }
    return BatchRecord(
        batch_id=manifest.batch_id,
        run_id=manifest.run_id,
        run_url=manifest.run_url,
        group=manifest.group,
        topic=manifest.topic,
        topic_id=manifest.topic_id,
        drained_at=datetime.fromisoformat(manifest.planned_at),
        scored_at=datetime.fromisoformat(scored.scored_at),
        model=model,
        partitions=tuple(_build_partition(one, deliveries.get(one.part.partition)) for one in partitions),
        reasons=dict(sum((Counter(one.reasons) for one in partitions), Counter[str]())),
        seconds={step: duration for step, duration in seconds.items() if duration is not None},
        marks=len(committed) + len(deliveries),
    )


def _build_partition(scored_part: ScoredPartition, delivery: ReportDelivery | None) -> PartitionRecord:
    part = scored_part.part
    return PartitionRecord(
        partition=part.partition,
        start=part.start,
        end=part.end,
        drained=part.payments + part.dead_letters,
        scored=scored_part.scored,
        frauds=scored_part.frauds,
        dead_letters=scored_part.dead_letters,
        lost=part.lost,
        delivery=delivery,
    )


def _longest(durations: Iterable[StepDuration | ReportDelivery | None]) -> float | None:
    """Return the longest time of what ran at the same time, None if no time is known."""
    return max((one.seconds for one in durations if one is not None and one.seconds is not None), default=None)


def _read_durations(
    storage: Storage, manifest: Manifest, name: str, numbers: Iterable[int]
) -> list[StepDuration | None]:
    """Read the files in the batch's folder whose names have these numbers; at the same time, for S3 answers slowly."""
    paths = [f"{manifest.folder}/{name.format(number)}" for number in numbers]
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        return list(threads.map(lambda path: read_optional(storage, path, StepDuration), paths))


def read_optional(storage: Storage, path: str, kind: type[_Kind]) -> _Kind | None:
    """Return a JSON file as an object of the type `kind`, or None if it is missing, damaged, or empty.

    Earlier versions wrote empty files.
    """
    try:
        data = storage.read(path)
        return decode(data, kind) if data else None
    except (StagedFileDamagedError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read, so the batch record leaves out what it says: %s", path, error)
        return None
