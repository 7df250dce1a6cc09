from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from include.batch.batch_id import hour_of, new_batch_id
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.errors import StagingError
from include.storage.staging import Storage
from tests.support.scoring import MODEL

MANIFEST = Manifest(
    batch_id="20260102T030405Z-abcdef",
    run_id="scheduled__2026-01-02T03:04:00+00:00",
    run_url="http://localhost/dags/x/runs/ü",
    group="group / ü",
    topic="topic",
    topic_id="AbC",
    planned_at="2026-01-02T03:04:05+00:00",
    partitions=(PartitionBatch(0, 5, 9, None, 1, 3, 1), PartitionBatch(7, 2**40, 2**40 + 9, 2**40 - 2, 2, 8, 1, 2)),
    columns=("amt", "größe"),
    left_for_later_runs=12,
)


def test_manifest_is_unchanged_by_xcom_and_storage(storage: Storage):
    # Producers name the columns, perhaps with personal data: they must not reach the metadata database.
    without_columns = msgspec.structs.replace(MANIFEST, columns=())
    assert Manifest.from_dict(json.loads(json.dumps(MANIFEST.to_dict()))) == without_columns
    assert MANIFEST.columns
    MANIFEST.save(storage)
    assert Manifest.load(storage, MANIFEST.batch_id) == MANIFEST
    assert (MANIFEST.payments, MANIFEST.dead_letters, MANIFEST.lost) == (11, 2, 2)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"batch_id": 7}'])
def test_unreadable_manifest_and_scores_are_named(folder: Storage, damage: bytes):
    folder.write(f"{MANIFEST.folder}/manifest.json", damage)
    folder.write(f"{MANIFEST.folder}/scored-0.json", damage)
    with pytest.raises(StagingError, match=r"manifest\.json in .* was not written by this version"):
        Manifest.load(folder, MANIFEST.batch_id)
    with pytest.raises(StagingError, match=r"scored-0\.json in .* was not written by this version"):
        ScoredBatch.load(folder, MANIFEST)


def test_stored_keys_of_a_manifest_are_those_of_earlier_versions():
    assert list(MANIFEST.to_dict()) == [
        "batch_id", "run_id", "run_url", "group", "topic", "topic_id", "drained_at", "partitions", "shards", "columns",
        "lag", "held_up", "seconds", "has_claim",
    ]  # fmt: skip


def test_scored_batch_is_read_as_it_was_saved(folder: Storage):
    one, two = MANIFEST.partitions
    scores = (ScoredPartition(one, "one", 5, 2, 1), ScoredPartition(two, "two", 3))
    scored = ScoredBatch(MODEL, "2026-01-01T00:00:00.000+00:00", scores, {"x": 1})
    scored.save(folder, MANIFEST.folder)
    assert ScoredBatch.load(folder, MANIFEST) == scored
    assert (scored.scored, scored.frauds, scored.dead_letters) == (8, 2, 1)


def test_batch_ids_sort_by_utc_time_and_are_unique():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5)))
    assert new_batch_id(now).startswith("20260101T220405Z-")
    assert new_batch_id(now) != new_batch_id(now)
    assert new_batch_id(now) < new_batch_id(now + timedelta(seconds=1))
    assert hour_of(new_batch_id(datetime(2026, 1, 2, 3, tzinfo=UTC))) == "20260102T03"
