from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from include.batch import chunks
from include.batch.batch_id import hour_of
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.storage.staging import Storage
from tests.support.scoring import MODEL


@pytest.fixture
def staged(folder: Storage) -> Callable[..., Manifest]:
    """Return a function that stages a batch: two payments and a dead letter per partition, with so many frauds."""

    def stage(batch_id: str, frauds: dict[int, int], **changes: Any) -> Manifest:
        attempt = f"batches/{hour_of(batch_id)}/{batch_id}/an-attempt"
        parts = tuple(PartitionBatch(number, 10, 13, 10, 1, 2, 1, staged=attempt) for number in frauds)
        values = {"run_id": "r", "run_url": "u", "group": "a/group", "topic": "topic", "topic_id": "id"}
        manifest = Manifest(
            batch_id=batch_id, planned_at="2026-01-01T00:00:00+00:00", partitions=parts, **values | changes
        )
        for number, count in frauds.items():
            columns = chunks.Columns(
                [10, 11, 12], [0, 0, None], [b"k", None, b""], [b"v", b"v", None], [None] * 3,
                [b'{"n":10,"is_fraud":', b'{"n":11,"is_fraud":', None], [b',"fraud_confirmed":null}'] * 2 + [None],
                [None, None, "empty_value: nothing"],
            )  # fmt: skip
            chunks.write_payments(folder, attempt, number, 0, columns)
            chunks.write_predictions(
                folder, attempt, number, 0,
                prediction=[int(count > 0), int(count > 1), None], probability=[0.9, 0.1, None],
                reason=columns.reason,
            )  # fmt: skip
        manifest.save(folder)
        scores = tuple(ScoredPartition(part, attempt, 2, frauds[part.partition], 1) for part in parts)
        ScoredBatch(MODEL, "2026-01-01T00:00:00+00:00", scores, {}).save(folder, manifest.folder)
        return manifest

    return stage
