"""The table of predictions, and beside it how far the output topic is recorded: both in one transaction."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import LedgerTakenError
from include.kafka.offsets import Topic
from include.ledger.prediction import COLUMNS, KEY

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

# All of a chunk: for each further piece the thread that copies would wait for the one that decodes.
_AT_ONCE = 64 * 1024 * 1024
_LOCK_SECONDS = 60
_LIST = ", ".join(COLUMNS)
_CONTENT = [name for name in COLUMNS if name not in KEY]
# Types of their own, so that nothing is cast afterwards; not logged, and gone with the connection.
INCOMING = f"""
CREATE TEMPORARY TABLE incoming ON COMMIT DELETE ROWS AS SELECT {_LIST} FROM ledger.predictions WITH NO DATA
"""  # noqa: S608
COPY = f"COPY incoming ({_LIST}) FROM STDIN"


def comparable(table: str, names: Iterable[str]) -> str:
    """These columns of a row, as SQL that can be compared."""
    # json has no equality: its text is what was published.
    return ", ".join(f"{table}.payment::text" if name == "payment" else f"{table}.{name}" for name in names)


# The same message again restores its row, wherever it was altered; another one counts if it was not scored earlier. A
# row that stays as it is, is not written, so that recording again changes nothing.
_UPSERT = f"""
INSERT INTO ledger.predictions AS known ({_LIST}) SELECT {_LIST} FROM incoming
ON CONFLICT ({", ".join(KEY)}) DO UPDATE
SET ({", ".join(_CONTENT)}, recorded_at) = ROW ({", ".join(f"excluded.{name}" for name in _CONTENT)}, now())
WHERE ((excluded.output_partition, excluded.output_offset) = (known.output_partition, known.output_offset)
       OR excluded.scored_at >= known.scored_at)
  AND ({comparable("known", _CONTENT)}) IS DISTINCT FROM ({comparable("excluded", _CONTENT)})
"""  # noqa: S608
_MOVE = """
INSERT INTO ledger.recorded_offsets AS known (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, partition) DO UPDATE
SET (topic_id, next_offset, recorded_at, begun_at) = (
    excluded.topic_id, excluded.next_offset, now(),
    CASE WHEN known.topic_id = excluded.topic_id THEN known.begun_at ELSE now() END
)
WHERE (known.topic_id, known.next_offset) = (%s, %s)
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
            cursor.execute(_UPSERT)
            written = cursor.rowcount
            self._move(cursor, ends)
        self.recorded |= {partition: RecordedOffset(self._topic.topic_id, end) for partition, end in ends.items()}
        return written

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
