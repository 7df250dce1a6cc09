"""Move batch records from the staging area to the ledger's tables `batches` and `batch_partitions`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.batch.batch_record import RECORDS_FOLDER, BatchRecord
from include.errors import LedgerError, StagedFileGoneError, StagingError
from include.ledger.connection import LedgerConnection
from include.ledger.schema import open_ledger
from include.storage.staging import Storage

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

log = logging.getLogger(__name__)

_FILES_PER_TRANSACTION = 500
_READER_THREADS = 16

# A later record of a batch has more marks. With equal marks the second one counts: it may know what the first could not
# read.
_BATCHES = """
INSERT INTO ledger.batches (
    batch_id, dag_run_id, run_url, consumer_group, topic, topic_id, drained_at, scored_at, model_run_id, model_name,
    model_version, model_asked, chosen_by, chosen_by_whom, reason, drained, scored, frauds, dead_letters,
    dead_letter_reasons, lost_to_retention, step_seconds, message_ids, recipients, mailed_at, marks
) VALUES %s
ON CONFLICT (batch_id) DO UPDATE SET
    drained = EXCLUDED.drained, scored = EXCLUDED.scored, frauds = EXCLUDED.frauds,
    dead_letters = EXCLUDED.dead_letters, dead_letter_reasons = EXCLUDED.dead_letter_reasons,
    lost_to_retention = EXCLUDED.lost_to_retention, step_seconds = EXCLUDED.step_seconds,
    message_ids = EXCLUDED.message_ids, recipients = EXCLUDED.recipients, mailed_at = EXCLUDED.mailed_at,
    scored_at = EXCLUDED.scored_at, marks = EXCLUDED.marks, recorded_at = now()
WHERE batches.marks <= EXCLUDED.marks
RETURNING batch_id
"""
_PARTITIONS = """
INSERT INTO ledger.batch_partitions (
    batch_id, partition, start_offset, end_offset, scored, frauds, dead_letters, lost_to_retention, message_id,
    recipients, mailed_at
) VALUES %s
"""


@dataclass(frozen=True)
class RecordedBatches:
    """How many batches are new or changed in the ledger, and how many files were recorded and deleted."""

    batches: int
    files: int


def record_batches(storage: Storage, ledger: LedgerConnection) -> RecordedBatches:
    """Record all batch records of the staging area. Delete each file after its transaction is committed.

    The call may be killed and repeated at any time. If files cannot be read, leave them and record all others, then
    raise LedgerError.
    """
    paths = [
        f"{RECORDS_FOLDER}/{day}/{name}"
        for day in storage.list(RECORDS_FOLDER)
        for name in storage.list(f"{RECORDS_FOLDER}/{day}")
    ]
    batches = files = 0
    errors: list[StagingError] = []
    with open_ledger(ledger, "fraud record batches") as connection, ThreadPoolExecutor(_READER_THREADS) as threads:
        for start in range(0, len(paths), _FILES_PER_TRANSACTION):
            some_paths = paths[start : start + _FILES_PER_TRANSACTION]
            results = list(zip(some_paths, threads.map(lambda path: _read(storage, path), some_paths), strict=True))
            errors += [result for _, result in results if isinstance(result, StagingError)]
            records = {path: result for path, result in results if isinstance(result, BatchRecord)}
            batches += _record(connection, list(records.values()))
            list(threads.map(storage.delete, records))
            files += len(records)
    if errors:
        raise LedgerError(
            f"{len(errors)} of the batches' records cannot be read, the first: {_first_clause(errors[0])}. The others "
            f"are recorded ({files} files). Put the file back, or delete it: its batch's predictions are recorded "
            "without it, but the ledger then lacks the model's choice, the run and the report of that batch"
        )
    return RecordedBatches(batches, files)


def _read(storage: Storage, path: str) -> BatchRecord | StagingError | None:
    """Return the batch record, the error if it cannot be read, or None if another recorder has deleted it."""
    try:
        return storage.need_json(path, BatchRecord)
    except StagedFileGoneError:
        return None
    except StagingError as error:
        log.error("batch record %s cannot be read and stays: %s", path, error)
        return error


def _record(connection: Connection, records: list[BatchRecord]) -> int:
    """Write the records in one transaction, and return how many batches are new or changed."""
    from psycopg2.extras import execute_values

    latest: dict[str, BatchRecord] = {}
    for record in records:
        if record.batch_id not in latest or latest[record.batch_id].marks <= record.marks:
            latest[record.batch_id] = record
    # Sorted, so that two recorders lock rows in the same order and cannot deadlock.
    rows = [_batch(latest[batch_id]) for batch_id in sorted(latest)]
    with connection, connection.cursor() as cursor:
        stored = execute_values(cursor, _BATCHES, rows, page_size=_FILES_PER_TRANSACTION, fetch=True)
        changed = [batch_id for (batch_id,) in stored]
        cursor.execute("DELETE FROM ledger.batch_partitions WHERE batch_id = ANY(%s)", (changed,))
        parts = [part for batch_id in changed for part in _partitions(latest[batch_id])]
        execute_values(cursor, _PARTITIONS, parts, page_size=_FILES_PER_TRANSACTION)
    return len(changed)


def _batch(record: BatchRecord) -> tuple[Any, ...]:
    parts, model, mails = record.partitions, record.model, record.deliveries
    return (
        record.batch_id, _without_nul(record.run_id), _without_nul(record.run_url), record.group,
        record.topic, record.topic_id, record.drained_at, record.scored_at, model.run_id, _without_nul(model.name),
        model.version, model.asked, model.chosen_by, _without_nul(model.who), _without_nul(model.reason),
        sum(part.drained for part in parts), sum(part.scored for part in parts), sum(part.frauds for part in parts),
        sum(part.dead_letters for part in parts), json.dumps(record.reasons), sum(part.lost for part in parts),
        json.dumps(record.seconds), [mail.message_id for mail in mails],
        sorted({address for mail in mails for address in mail.recipients}),
        max((mail.at for mail in mails), default=None), record.marks,
    )  # fmt: skip


def _partitions(record: BatchRecord) -> Iterator[tuple[Any, ...]]:
    for part in record.partitions:
        mail = part.delivery
        sent = (mail.message_id, list(mail.recipients), mail.at) if mail else (None, None, None)
        counts = part.scored, part.frauds, part.dead_letters, part.lost
        yield record.batch_id, part.partition, part.start, part.end, *counts, *sent


def _first_clause(error: StagingError) -> str:
    """Return the file and the fault. The error's remedy, after the semicolon, is that of a batch, not of a record."""
    return str(error).partition(";")[0]


def _without_nul(text: str | None) -> str | None:
    """Return a text that people have typed without NUL, the one character that PostgreSQL's text cannot hold."""
    return None if text is None else text.replace("\0", "")
