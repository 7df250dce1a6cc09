"""Takes over what the scoring has left of its batches in the staging area, into batches and batch_partitions."""

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

# Of one transaction.
_FILES = 500
_READERS = 16

# A later record has more marks. Of two with as many, the second may know what the first one could not read.
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
    """How many batches are new or better known than before, and how many files were taken over."""

    batches: int
    files: int


def record_batches(storage: Storage, address: LedgerConnection) -> RecordedBatches:
    """May be repeated, and killed, at any time: a file goes once it is committed.

    Raises LedgerError, once all others are recorded, where a file cannot be read: it stays.
    """
    paths = [
        f"{RECORDS_FOLDER}/{day}/{name}"
        for day in storage.list(RECORDS_FOLDER)
        for name in storage.list(f"{RECORDS_FOLDER}/{day}")
    ]
    batches = files = 0
    unread: dict[str, StagingError] = {}
    with open_ledger(address, "fraud record batches") as connection, ThreadPoolExecutor(_READERS) as threads:
        for some in _parts(paths):
            found = dict(zip(some, threads.map(lambda path: _read(storage, path), some), strict=True))
            unread |= {path: error for path, error in found.items() if isinstance(error, StagingError)}
            records = {path: record for path, record in found.items() if isinstance(record, BatchRecord)}
            batches += _record(connection, list(records.values()))
            list(threads.map(storage.delete, records))
            files += len(records)
    if unread:
        error = next(iter(unread.values()))
        raise LedgerError(
            f"{len(unread)} of the batches' records cannot be read, the first: {_first_clause(error)}. The others "
            f"are recorded ({files} files). Put the file back, or delete it: predictions are recorded all the same, "
            "but then the ledger does not know how those of this batch came about"
        )
    return RecordedBatches(batches, files)


def _parts(paths: list[str]) -> Iterator[list[str]]:
    return (paths[at : at + _FILES] for at in range(0, len(paths), _FILES))


def _read(storage: Storage, path: str) -> BatchRecord | StagingError | None:
    """None where another reader has taken it meanwhile."""
    try:
        return storage.need_json(path, BatchRecord)
    except StagedFileGoneError:
        return None
    except StagingError as error:
        log.error("%s stays: %s", path, error)
        return error


def _record(connection: Connection, records: list[BatchRecord]) -> int:
    from psycopg2.extras import execute_values

    latest: dict[str, BatchRecord] = {}
    for record in records:
        if record.batch_id not in latest or latest[record.batch_id].marks <= record.marks:
            latest[record.batch_id] = record
    # In one order, so that two readers do not wait for each other for ever.
    rows = [_batch(latest[batch_id]) for batch_id in sorted(latest)]
    with connection, connection.cursor() as cursor:
        stored = execute_values(cursor, _BATCHES, rows, page_size=_FILES, fetch=True)
        changed = [batch_id for (batch_id,) in stored]
        cursor.execute("DELETE FROM ledger.batch_partitions WHERE batch_id = ANY(%s)", (changed,))
        parts = [part for batch_id in changed for part in _partitions(latest[batch_id])]
        execute_values(cursor, _PARTITIONS, parts, page_size=_FILES)
    return len(changed)


def _batch(record: BatchRecord) -> tuple[Any, ...]:
    parts, model, mails = record.partitions, record.model, record.deliveries
    return (
        record.batch_id, _text(record.run_id), _text(record.run_url), record.group, record.topic, record.topic_id,
        record.drained_at, record.scored_at, model.run_id, _text(model.name), model.version, model.asked,
        model.chosen_by, _text(model.who), _text(model.reason),
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
    """Which file, and what is wrong. What mends it is another thing with a record than with a batch."""
    return str(error).partition(";")[0]


def _text(text: str | None) -> str | None:
    """What people have typed may hold the one character that PostgreSQL takes in no text."""
    return None if text is None else text.replace("\0", "")
