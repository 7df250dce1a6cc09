"""The table of predictions, and beside it how far the output topic is recorded: both in one transaction."""

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

# All of a chunk: for each further piece the thread that copies would wait for the one that decodes.
_AT_ONCE = 64 * 1024 * 1024
_LOCK_SECONDS = 60
_LIST = ", ".join(COLUMNS)
_SET = [name for name in COLUMNS if name not in KEY]
# Types of their own, so that nothing is cast afterwards; not logged, and gone with the connection.
INCOMING = f"""
CREATE TEMPORARY TABLE incoming ON COMMIT DELETE ROWS AS SELECT {_LIST} FROM ledger.predictions WITH NO DATA
"""  # noqa: S608
COPY = f"COPY incoming ({_LIST}) FROM STDIN"


def comparable(table: str, names: Iterable[str]) -> str:
    """These columns of a row, as SQL that can be compared."""
    # json has no equality: its text is what was published.
    return ", ".join(f"{table}.payment::text" if name == "payment" else f"{table}.{name}" for name in names)


# Where a copy of the same message stands does not tell its row from another.
CONTENT = [name for name in COLUMNS if name not in KEY and not name.startswith("output_")]
_PLACE = ("output_partition", "output_offset")


def _of(table: str, names: Iterable[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def _is_newer(table: str, than: str) -> str:
    """Of one time, the place decides: so in whatever order they are read, the same one stands in the end."""
    names = ("scored_at", *_PLACE)
    return f"({_of(table, names)}) > ({_of(than, names)})"


def _differs(one: str, other: str) -> str:
    return f"(({comparable(one, CONTENT)}) IS DISTINCT FROM ({comparable(other, CONTENT)}))"


# The same message again restores its row, wherever it was altered; another one counts if it is newer. A row that stays
# as it is, is not written, so that recording again changes nothing.
_UPSERT = f"""
INSERT INTO ledger.predictions AS known ({_LIST}) SELECT {_LIST} FROM incoming
ON CONFLICT ({", ".join(KEY)}) DO UPDATE
SET ({", ".join(_SET)}, recorded_at) = ROW ({_of("excluded", _SET)}, now())
WHERE {_differs("known", "excluded")}
  AND (({_of("excluded", _PLACE)}) = ({_of("known", _PLACE)}) OR {_is_newer("excluded", "known")})
"""  # noqa: S608
# Partitions are read in any order: what is older than its row was published all the same.
_KEEP_OLDER = f"""
INSERT INTO ledger.replaced_predictions ({_LIST}, recorded_at)
SELECT {_of("incoming", COLUMNS)}, now() FROM incoming
JOIN ledger.predictions AS known ON ({_of("known", KEY)}) = ({_of("incoming", KEY)})
WHERE {_is_newer("known", "incoming")} AND {_differs("known", "incoming")}
  AND ({_of("known", _PLACE)}) <> ({_of("incoming", _PLACE)})
  AND NOT EXISTS (
    SELECT FROM ledger.replaced_predictions AS kept WHERE ({_of("kept", KEY)}) = ({_of("incoming", KEY)})
    AND NOT kept.altered AND NOT {_differs("kept", "incoming")}
  )
"""  # noqa: S608
# Mostly all rows are new, and behind all that are known: then PostgreSQL need not look for a conflict with each. By an
# order, so that the key is used, however many rows there are.
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
_INSERT = f"INSERT INTO ledger.predictions ({_LIST}) SELECT {_LIST} FROM incoming"  # noqa: S608
_MOVE = """
INSERT INTO ledger.recorded_offsets AS known (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, partition) DO UPDATE
SET (topic_id, next_offset, recorded_at, begun_at) = (
    excluded.topic_id, excluded.next_offset, now(),
    CASE WHEN known.topic_id = excluded.topic_id THEN known.begun_at ELSE now() END
)
WHERE (known.topic_id, known.next_offset) = (%s, %s)
"""
_NOTE_LOST = """
INSERT INTO ledger.lost_offsets AS known (topic, topic_id, partition, start_offset, end_offset)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (topic, topic_id, partition, start_offset) DO UPDATE SET end_offset = excluded.end_offset
RETURNING xmax = 0
"""
_TELL_LOST = """
UPDATE ledger.lost_offsets SET told_at = now() WHERE topic = %s AND told_at IS NULL
RETURNING topic_id, partition, start_offset, end_offset
"""
_TAKE_OVER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()
  AND application_name = current_setting('application_name')
"""


@dataclass(frozen=True)
class RecordedOffset:
    """`topic_id`: of which incarnation of the topic."""

    topic_id: str
    next_offset: int


@dataclass(frozen=True, order=True)
class LostOffsets:
    """Offsets `[start, end)` of one partition that were gone before they could be recorded; `end` is None where nobody
    knows it: of an earlier topic of that name."""

    topic_id: str
    partition: int
    start: int
    end: int | None

    def __str__(self) -> str:
        if self.end is None:
            return f"what came from offset {self.start} on in partition {self.partition} of the topic that was deleted"
        return f"offsets [{self.start}, {self.end}) of partition {self.partition}"


class Predictions:
    def __init__(self, connection: Connection, topic: Topic) -> None:
        """Ends what older recorders of this topic still do here: one that was frozen must not hold up its successor."""
        self._connection = connection
        self._topic = topic
        with connection, connection.cursor() as cursor:
            cursor.execute(_TAKE_OVER)
            # Of a temporary table; what does not fit goes through files.
            cursor.execute("SET temp_buffers = '64MB'")
            # Somebody's open transaction fails a try, and does not stop recording unseen.
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

    def is_at(self, partition: int, offset: int) -> bool:
        return self.recorded.get(partition) == RecordedOffset(self._topic.topic_id, offset)

    def note_lost(self, lost: Iterable[LostOffsets]) -> bool:
        """Whether there is something to tell. Before anything else is recorded: whoever dies then leaves it to the next
        run."""
        with self._connection, self._connection.cursor() as cursor:
            for one in lost:
                cursor.execute(_NOTE_LOST, (self._topic.name, one.topic_id, one.partition, one.start, one.end))
                if cursor.fetchone() == (True,):
                    log.error("%s: gone before it could be recorded: %s", self._topic.name, one)
            cursor.execute("SELECT FROM ledger.lost_offsets WHERE topic = %s AND told_at IS NULL", (self._topic.name,))
            return cursor.rowcount > 0

    def tell_lost(self) -> list[LostOffsets]:
        """What no run has told of yet; the caller does."""
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(_TELL_LOST, (self._topic.name,))
            return sorted((LostOffsets(*row) for row in cursor.fetchall()), key=lambda one: (one.partition, one.start))

    def cancel(self) -> None:
        """What another thread has the database do."""
        self._connection.cancel()

    def write(self, lines: Iterable[bytes], ends: Mapping[int, int]) -> int:
        """Rows, and where the next run begins in each partition: all of it, or nothing. How many rows are new or other
        than before. No two lines may have the same key.

        Raises LedgerTakenError where somebody else has recorded these offsets meanwhile.
        """
        with self._connection, self._connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(b"".join(lines)), size=_AT_ONCE)
            written = self._merge(cursor)
            self._move(cursor, ends)
        self.recorded |= {partition: RecordedOffset(self._topic.topic_id, end) for partition, end in ends.items()}
        return written

    def _merge(self, cursor: Cursor) -> int:
        """How many rows are new or other than before."""
        cursor.execute(_ARE_NEW)
        if cursor.fetchone() == (True,):
            cursor.execute(_INSERT)
            return cursor.rowcount
        cursor.execute(_UPSERT)
        written = cursor.rowcount
        cursor.execute(_KEEP_OLDER)
        return written + cursor.rowcount

    def _move(self, cursor: Cursor, ends: Mapping[int, int]) -> None:
        for partition, end in sorted(ends.items()):
            before = self.recorded.get(partition)
            known = (before.topic_id, before.next_offset) if before else (None, None)
            cursor.execute(_MOVE, (self._topic.name, partition, self._topic.topic_id, end, *known))
            if cursor.rowcount != 1:
                raise LedgerTakenError(
                    f"{self._topic.name}/{partition} is no longer recorded to {before.next_offset if before else 0}: "
                    "another recorder, or an operator, has moved on meanwhile. Nothing is lost: the next run goes on "
                    "from there"
                )
