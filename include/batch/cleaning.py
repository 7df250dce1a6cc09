"""Remove old batches and records from the staging area. They hold card data, so they are kept for a limited time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from include.batch.batch_id import hour_of
from include.batch.batch_record import RECORDS_FOLDER
from include.batch.claims import CLAIMS_FOLDER
from include.batch.outbox import FINAL_SUFFIX
from include.storage.staging import Storage

log = logging.getLogger(__name__)


def remove_old_records(storage: Storage, hours: float) -> int:
    """Remove the days of batch records that are older than `hours`, and return how many records they had.

    The ledger removes the records that it has read; without a ledger they would pile up.
    """
    oldest_kept = f"{datetime.now(UTC) - timedelta(hours=hours):%Y%m%d}"
    old = [day for day in storage.list(RECORDS_FOLDER) if day < oldest_kept]
    removed = 0
    for day in old:
        removed += len(storage.list(f"{RECORDS_FOLDER}/{day}"))
        storage.delete(f"{RECORDS_FOLDER}/{day}")
    if removed:
        log.warning("removed %d batch records of days before %s, which no ledger has read", removed, oldest_kept)
    return removed


def remove_old_batches(storage: Storage, hours: float) -> int:
    """Remove batches that were planned more than `hours` ago, and return how many.

    Batches with an outbox entry stay: a report may be pending.
    """
    oldest_kept = hour_of(f"{datetime.now(UTC) - timedelta(hours=hours):%Y%m%dT%H%M%SZ}")
    old = [hour for hour in storage.list("batches") if hour < oldest_kept]
    if not old:
        return 0
    in_outbox = {entry.rpartition("/")[2].removesuffix(FINAL_SUFFIX) for entry in _list_below(storage, "outbox", 3)}
    _remove_listings(storage, oldest_kept)
    removed = 0
    for hour in old:
        for batch_id in storage.list(f"batches/{hour}"):
            if batch_id not in in_outbox:
                storage.delete(f"batches/{hour}/{batch_id}")
                removed += 1
        if not storage.list(f"batches/{hour}"):
            storage.delete(f"batches/{hour}")
    log.info("removed %d staged batches that were planned before %s", removed, oldest_kept)
    return removed


def _remove_listings(storage: Storage, oldest_kept: str) -> None:
    """Delete the files in `claims/` that list old batches (`claims`).

    `plan` deletes those of its own DAG. Those of a DAG that no longer runs would stay for good.
    """
    for listing in _list_below(storage, CLAIMS_FOLDER, 4):
        if hour_of(listing.rpartition("/")[2]) < oldest_kept:
            storage.delete(listing)


def _list_below(storage: Storage, folder: str, levels: int) -> list[str]:
    """Return the paths that lie `levels` levels below a folder."""
    paths = [folder]
    for _ in range(levels):
        paths = [f"{path}/{name}" for path in paths for name in storage.list(path)]
    return paths
