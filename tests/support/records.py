"""Batch records in the staging area that wait for the ledger."""

from __future__ import annotations

from include.batch.batch_record import RECORDS_FOLDER, BatchRecord
from include.storage.staging import Storage


def paths(storage: Storage) -> list[str]:
    return [
        f"{RECORDS_FOLDER}/{day}/{name}"
        for day in storage.list(RECORDS_FOLDER)
        for name in storage.list(f"{RECORDS_FOLDER}/{day}")
    ]


def records(storage: Storage) -> list[BatchRecord]:
    """Return the records, in the order of their marks."""
    found = [storage.need_json(path, BatchRecord) for path in paths(storage)]
    return sorted(found, key=lambda record: (record.batch_id, record.marks))
