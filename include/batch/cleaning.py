"""Staged batches hold card data, so they are removed after a retention time; those whose report is owed wait for it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from include.batch.batch_record import FOLDER
from include.batch.claims import FOLDER as CLAIMS
from include.batch.manifest import hour_of
from include.batch.outbox import COMMITTED
from include.storage.staging import Storage

log = logging.getLogger(__name__)


def remove_old_records(storage: Storage, hours: float) -> int:
    """How many: where no ledger takes them over, they must not pile up for ever."""
    oldest_kept = f"{datetime.now(UTC) - timedelta(hours=hours):%Y%m%d}"
    old = [day for day in storage.list(FOLDER) if day < oldest_kept]
    removed = 0
    for day in old:
        removed += len(storage.list(f"{FOLDER}/{day}"))
        storage.delete(f"{FOLDER}/{day}")
    if removed:
        log.warning("removed %d records of batches before %s, which no ledger has taken over", removed, oldest_kept)
    return removed


def remove_old_batches(storage: Storage, hours: float) -> int:
    """How many."""
    oldest_kept = hour_of(f"{datetime.now(UTC) - timedelta(hours=hours):%Y%m%dT%H%M%SZ}")
    old = [hour for hour in storage.list("batches") if hour < oldest_kept]
    if not old:
        return 0
    owed = {entry.rpartition("/")[2].removesuffix(COMMITTED) for entry in _below(storage, "outbox", 3)}
    _remove_claims(storage, oldest_kept)
    removed = 0
    for hour in old:
        for batch_id in storage.list(f"batches/{hour}"):
            if batch_id not in owed:
                storage.delete(f"batches/{hour}/{batch_id}")
                removed += 1
        if not storage.list(f"batches/{hour}"):
            storage.delete(f"batches/{hour}")
    log.info("removed %d staged batches before %s", removed, oldest_kept)
    return removed


def _remove_claims(storage: Storage, oldest_kept: str) -> None:
    """Remove expired claims of DAGs that no longer run."""
    for claim in _below(storage, CLAIMS, 4):
        if hour_of(claim.rpartition("/")[2]) < oldest_kept:
            storage.delete(claim)


def _below(storage: Storage, folder: str, levels: int) -> list[str]:
    """Return the paths `levels` levels below a folder."""
    paths = [folder]
    for _ in range(levels):
        paths = [f"{path}/{name}" for path in paths for name in storage.list(path)]
    return paths
