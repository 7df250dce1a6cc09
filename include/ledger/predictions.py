"""Write rows to the table of predictions, and the recorded offsets of the output topic in the same transaction."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import LedgerTakenError
from include.kafka.cluster import Topic
from include.ledger.prediction_row import COLUMNS, KEY

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

log = logging.getLogger(__name__)

# More than a chunk has: at each read of a smaller piece, COPY would wait for the thread that decodes messages.
_COPY_BUFFER_BYTES = 64 * 1024 * 1024
_LOCK_SECONDS = 60
_COLUMN_LIST = ", ".join(COLUMNS)
_VALUE_COLUMNS = [name for name in COLUMNS if name not in KEY]
# Its columns have the types of the table's, so that nothing is cast later. It is not logged, and ends with the session.
INCOMING = f"""
CREATE TEMPORARY TABLE incoming ON COMMIT DELETE ROWS AS SELECT {_COLUMN_LIST} FROM ledger.predictions WITH NO DATA
"""  # noqa: S608
COPY = f"COPY incoming ({_COLUMN_LIST}) FROM STDIN"


def comparable(table: str, names: Iterable[str]) -> str:
    """Return SQL for these columns of a row that can be compared with another row's."""
    # PostgreSQL's type json has no equality; its text is the text that was published.
    return ", ".join(f"{table}.payment::text" if name == "payment" else f"{table}.{name}" for name in names)


# All but the position on the output topic, which differs between two copies of one message.
CONTENT = [name for name in COLUMNS if name not in KEY and not name.startswith("output_")]
_POSITION = ("output_partition", "output_offset")


def _columns(table: str, names: Iterable[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def _is_newer(table: str, other: str) -> str:
    # At the same scored_at the position decides, so that the result does not depend on the order of reading.
    names = ("scored_at", *_POSITION)
    return f"({_columns(table, names)}) > ({_columns(other, names)})"


def _differs(table: str, other: str) -> str:
    return f"(({comparable(table, CONTENT)}) IS DISTINCT FROM ({comparable(other, CONTENT)}))"


# The message at the row's own position restores a row that was altered by hand; another message replaces the row if it
# is newer. Equal rows are not written, so that recording again changes nothing.
_UPSERT = f"""
INSERT INTO ledger.predictions AS known ({_COLUMN_LIST}) SELECT {_COLUMN_LIST} FROM incoming
ON CONFLICT ({", ".join(KEY)}) DO UPDATE
SET ({", ".join(_VALUE_COLUMNS)}, recorded_at) = ROW ({_columns("excluded", _VALUE_COLUMNS)}, now())
WHERE {_differs("known", "excluded")}
  AND (({_columns("excluded", _POSITION)}) = ({_columns("known", _POSITION)}) OR {_is_newer("excluded", "known")})
"""  # noqa: S608
# Partitions are read in any order, so a prediction may be older than its row. It was published, so it is kept.
_KEEP_OLDER = f"""
INSERT INTO ledger.replaced_predictions ({_COLUMN_LIST}, recorded_at)
SELECT {_columns("incoming", COLUMNS)}, now() FROM incoming
JOIN ledger.predictions AS known ON ({_columns("known", KEY)}) = ({_columns("incoming", KEY)})
WHERE {_is_newer("known", "incoming")} AND {_differs("known", "incoming")}
  AND ({_columns("known", _POSITION)}) <> ({_columns("incoming", _POSITION)})
  AND NOT EXISTS (
    SELECT FROM ledger.replaced_predictions AS kept WHERE ({_columns("kept", KEY)}) = ({_columns("incoming", KEY)})
    AND NOT kept.altered AND NOT {_differs("kept", "incoming")}
  )
"""  # noqa: S608
# Most chunks have only rows behind all known ones: then an INSERT need not look for a conflict of each row. ORDER BY
# with LIMIT makes PostgreSQL use the primary key, however many rows there are.
_ARE_NEW = """
SELECT NOT EXISTS (
    SELECT FROM (
        SELECT source_topic, source_partition, min(source_offset) AS low, max(source_offset) AS high
        FROM incoming GROUP BY source_topic, source_partition
    ) AS given
    CROSS JOIN LATERAL (
        SELECT FROM ledger.predictions AS known
        WHERE known.source_topic = given.source_topic AND known.source_partition = given.source_partition
          AND known.source_offset BETWEEN low AND high
        ORDER BY known.source_offset LIMIT 1
    ) AS found
)
"""
_INSERT = f"INSERT INTO ledger.predictions ({_COLUMN_LIST}) SELECT {_COLUMN_LIST} FROM incoming"  # noqa: S608
_ADVANCE_OFFSET = """
INSERT INTO ledger.recorded_offsets AS known (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, partition) DO UPDATE
SET (topic_id, next_offset, recorded_at, begun_at) = (
    excluded.topic_id, excluded.next_offset, now(),
    CASE WHEN known.topic_id = excluded.topic_id THEN known.begun_at ELSE now() END
)
WHERE (known.topic_id, known.next_offset) = (%s, %s)
"""
_STORE_LOST = """
INSERT INTO ledger.lost_offsets AS known (topic, topic_id, partition, start_offset, end_offset)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (topic, topic_id, partition, start_offset) DO UPDATE SET end_offset = excluded.end_offset
RETURNING xmax = 0
"""
_MARK_LOST_REPORTED = """
UPDATE ledger.lost_offsets SET told_at = now() WHERE topic = %s AND told_at IS NULL
RETURNING topic_id, partition, start_offset, end_offset
"""
_END_OLDER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()
  AND application_name = current_setting('application_name')
"""


@dataclass(frozen=True)
class RecordedOffset:
    """How far a partition is recorded. `topic_id` tells the topic from a deleted topic of the same name."""

    topic_id: str
    next_offset: int


@dataclass(frozen=True, order=True)
class LostOffsets:
    """Offsets `[start, end)` of one partition whose messages were deleted before they were recorded.

    `end` is None if it is unknown, because the topic itself was deleted.
    """

    topic_id: str
    partition: int
    start: int
    end: int | None

    def __str__(self) -> str:
        if self.end is None:
            return f"offsets from {self.start} on of partition {self.partition} of the deleted topic"
        return f"offsets [{self.start}, {self.end}) of partition {self.partition}"


class Predictions:
    """The table of predictions, over a session that no older recorder of the same topic shares.

    `recorded` has the next offset to record of each partition that the ledger knows.
    """

    def __init__(self, connection: Connection, topic: Topic) -> None:
        """End the sessions of older recorders of this topic, so that a frozen one does not block this one."""
        self._connection = connection
        self._topic = topic
        with connection, connection.cursor() as cursor:
            cursor.execute(_END_OLDER_SESSIONS)
            # Memory for the temporary table; PostgreSQL writes the rest to files.
            cursor.execute("SET temp_buffers = '64MB'")
            # If another client holds a lock, the task fails and is tried again, instead of waiting silently.
            cursor.execute("SET lock_timeout = %s", (f"{_LOCK_SECONDS}s",))
            cursor.execute(INCOMING)
        self.recorded = self._read_offsets()

    def _read_offsets(self) -> dict[int, RecordedOffset]:
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT partition, topic_id, next_offset FROM ledger.recorded_offsets WHERE topic = %s",
                (self._topic.name,),
            )
            return {partition: RecordedOffset(*rest) for partition, *rest in cursor.fetchall()}

    def is_recorded_to(self, partition: int, offset: int) -> bool:
        """Return whether `offset` is the next offset to record of this partition."""
        return self.recorded.get(partition) == RecordedOffset(self._topic.topic_id, offset)

    def store_lost(self, lost: Iterable[LostOffsets]) -> bool:
        """Store lost offsets, and return whether any are unreported, by this run or an earlier one.

        Call it before other rows are written: if the run dies afterwards, the next run reports them.
        """
        with self._connection, self._connection.cursor() as cursor:
            for offsets in lost:
                position = self._topic.name, offsets.topic_id, offsets.partition, offsets.start, offsets.end
                cursor.execute(_STORE_LOST, position)
                if cursor.fetchone() == (True,):
                    log.error("%s: %s were deleted before they were recorded", self._topic.name, offsets)
            cursor.execute("SELECT FROM ledger.lost_offsets WHERE topic = %s AND told_at IS NULL", (self._topic.name,))
            return cursor.rowcount > 0

    def take_unreported_lost(self) -> list[LostOffsets]:
        """Return the lost offsets that no run has reported, and mark them as reported: the caller reports them."""
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(_MARK_LOST_REPORTED, (self._topic.name,))
            lost = [LostOffsets(*row) for row in cursor.fetchall()]
        return sorted(lost, key=lambda offsets: (offsets.partition, offsets.start))

    def cancel(self) -> None:
        """Cancel the statement that another thread executes."""
        self._connection.cancel()

    def write(self, lines: Iterable[bytes], next_offsets: Mapping[int, int]) -> int:
        """Write rows and the next offset to record of each partition, in one transaction.

        No two lines may have the same key. Return how many rows are new or changed. Raise LedgerTakenError if another
        recorder or an operator has changed the recorded offsets.
        """
        with self._connection, self._connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(b"".join(lines)), size=_COPY_BUFFER_BYTES)
            written = self._merge(cursor)
            self._advance_offsets(cursor, next_offsets)
        self.recorded |= {
            partition: RecordedOffset(self._topic.topic_id, offset) for partition, offset in next_offsets.items()
        }
        return written

    def _merge(self, cursor: Cursor) -> int:
        """Merge the copied rows into the table, and return how many are new or changed."""
        cursor.execute(_ARE_NEW)
        if cursor.fetchone() == (True,):
            cursor.execute(_INSERT)
            return cursor.rowcount
        cursor.execute(_UPSERT)
        written = cursor.rowcount
        cursor.execute(_KEEP_OLDER)
        return written + cursor.rowcount

    def _advance_offsets(self, cursor: Cursor, next_offsets: Mapping[int, int]) -> None:
        for partition, offset in sorted(next_offsets.items()):
            before = self.recorded.get(partition)
            expected = (before.topic_id, before.next_offset) if before else (None, None)
            cursor.execute(_ADVANCE_OFFSET, (self._topic.name, partition, self._topic.topic_id, offset, *expected))
            if cursor.rowcount != 1:
                raise LedgerTakenError(
                    f"{self._topic.name}/{partition} is no longer recorded to {before.next_offset if before else 0}: "
                    "another recorder or an operator has changed it meanwhile. Nothing is lost: the next run continues "
                    "from there"
                )
