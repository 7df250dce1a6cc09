from __future__ import annotations

from datetime import UTC, datetime, timedelta

from include.batch.batch_id import hour_of, new_batch_id
from include.batch.claims import Claims
from include.batch.cleaning import remove_old_batches
from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.storage.staging import Storage


def stage(storage: Storage, hours_ago: float) -> Manifest:
    batch_id = new_batch_id(datetime.now(UTC) - timedelta(hours=hours_ago))
    manifest = Manifest(batch_id, "r", "u", "a/group", "topic", "id", "2026-01-01T00:00:00+00:00", ())
    manifest.save(storage)
    storage.write(f"{manifest.folder}/payments-0-0.parquet", b"x")
    return manifest


def test_old_batches_are_removed_except_those_with_a_pending_report(storage: Storage):
    old, pending, recent = stage(storage, 80), stage(storage, 80), stage(storage, 70)
    Outbox(storage, "a/group", "topic").open_entry(pending)
    claims = Claims(storage, "a/group", "topic", "an/installation/runs/1")
    for one in (old, recent):
        claims.save(one)
    assert remove_old_batches(storage, hours=72) == 1
    assert storage.list(old.folder) == []
    assert storage.list(pending.folder) == ["manifest.json", "payments-0-0.parquet"]
    assert storage.list(recent.folder) == ["claim", "manifest.json", "payments-0-0.parquet"]
    # Old claims of an installation that no longer runs are removed; the recent one stays.
    assert storage.list(claims._folder) == [recent.batch_id]

    storage.delete(f"outbox/a%2Fgroup/topic/{pending.batch_id}")
    remove_old_batches(storage, hours=72)
    assert storage.list("batches") == [hour_of(recent.batch_id)]


def test_empty_staging_area_has_nothing_to_remove(storage: Storage):
    assert remove_old_batches(storage, hours=1) == 0
    assert storage.list("batches") == []
