"""Holds the ledger against the output topic: each prediction there must be its row, and each row such a prediction.

The output topic's messages go into a temporary table, as rows of the same types; PostgreSQL compares.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import Message

from include.kafka.offsets import Topic
from include.ledger.prediction import COLUMNS, KEY, PredictionReader
from include.ledger.predictions import COPY, INCOMING, comparable
from include.payments.refusal import Refusal
from include.verify.message import Headers, Place
from include.verify.reading import Windows
from include.verify.verdict import LEDGER_KINDS, Finding, LedgerPartition, LedgerVerdict

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_AT_ONCE = 20_000
_PASSED_OVER = {
    "expired": "their messages expired on the output topic",
    "earlier": "their payments stood on an earlier input topic of that name",
}
# Where a copy of the same message stands does not tell its row from another.
_CONTENT = [name for name in COLUMNS if name not in KEY and not name.startswith("output_")]


def _digest(table: str) -> str:
    return f"md5(ROW({comparable(table, _CONTENT)})::text)"


_EXPECTED = """
CREATE TEMPORARY TABLE expected AS
SELECT source_partition, source_offset, source_row, scored_at, output_partition, output_offset, ''::text AS digest
FROM ledger.predictions WITH NO DATA
"""
_EXPECT = f"""
INSERT INTO expected
SELECT source_partition, source_offset, source_row, scored_at, output_partition, output_offset, {_digest("incoming")}
FROM incoming
"""  # noqa: S608
_BOUNDS = """
CREATE TEMPORARY TABLE checked (partition integer, since bigint, until bigint);
CREATE TEMPORARY TABLE retained (partition integer, first bigint);
"""
# Of each source: the newest message of the output topic, and whether the recorder has come to one of it.
_JUDGE = f"""
CREATE TEMPORARY TABLE judged AS
WITH due AS (
    SELECT source_partition, source_offset, source_row, max(scored_at) AS newest,
           min(output_partition) AS output_partition, min(output_offset) AS output_offset,
           bool_and(output_offset >= coalesce(next_offset, 0)) AS waits
    FROM expected
    LEFT JOIN ledger.recorded_offsets AS known
        ON known.topic = %(output)s AND known.topic_id = %(output_id)s AND known.partition = output_partition
    GROUP BY source_partition, source_offset, source_row
), there AS (
    SELECT source_partition, source_offset, source_row, output_partition, output_offset, batch_id, recorded_at,
           {_digest("predictions")} AS digest
    FROM ledger.predictions
    JOIN checked ON source_partition = partition AND source_offset >= since AND source_offset < until
    WHERE source_topic = %(source)s
)
SELECT source_partition, source_offset, source_row,
       coalesce(due.output_partition, there.output_partition) AS output_partition,
       coalesce(due.output_offset, there.output_offset) AS output_offset,
       CASE WHEN there.digest IS NULL THEN CASE WHEN due.waits THEN 'waiting' ELSE 'unrecorded' END
            WHEN due.newest IS NULL THEN
                CASE WHEN there.output_offset < (SELECT first FROM retained
                                                 WHERE retained.partition = there.output_partition)
                       OR there.recorded_at < (SELECT begun_at FROM ledger.recorded_offsets AS known
                                               WHERE known.topic = %(output)s
                                               AND known.partition = there.output_partition) THEN 'expired'
                     WHEN EXISTS (SELECT FROM ledger.batches WHERE batches.batch_id = there.batch_id
                                  AND (topic, topic_id) <> (%(source)s, %(source_id)s)) THEN 'earlier'
                     ELSE 'unfounded' END
            WHEN EXISTS (SELECT FROM expected WHERE expected.source_partition = due.source_partition
                         AND expected.source_offset = due.source_offset AND expected.source_row = due.source_row
                         AND expected.scored_at = due.newest AND expected.digest = there.digest) THEN 'right'
            WHEN due.waits THEN 'waiting' ELSE 'differing' END AS kind
FROM due FULL JOIN there USING (source_partition, source_offset, source_row)
"""  # noqa: S608
_COUNT = "SELECT source_partition, kind, count(*) FROM judged GROUP BY source_partition, kind"
_FIND = """
SELECT source_partition, source_offset, source_row, output_partition, output_offset FROM judged WHERE kind = %s
ORDER BY source_partition, source_offset, source_row LIMIT %s
"""
_EXPIRED = "SELECT source_partition, source_offset, source_row FROM judged WHERE kind = 'expired'"
# Of batches that are checked whole. What is told already, or waits, does not count against them.
_MISCOUNTED = """
SELECT parts.partition, parts.batch_id, start_offset, end_offset, parts.scored, found_rows
FROM ledger.batch_partitions AS parts JOIN ledger.batches USING (batch_id)
JOIN checked ON checked.partition = parts.partition AND start_offset >= since AND end_offset <= until
CROSS JOIN LATERAL (
    SELECT count(DISTINCT (source_offset, source_row)) AS found_rows FROM ledger.all_predictions AS every
    WHERE source_topic = topic AND source_partition = parts.partition AND source_offset >= start_offset
      AND source_offset < end_offset AND every.batch_id = parts.batch_id
) AS counted
WHERE topic = %(source)s AND topic_id = %(source_id)s AND consumer_group = %(group)s AND found_rows <> parts.scored
  AND NOT EXISTS (
    SELECT FROM judged WHERE source_partition = parts.partition AND source_offset >= start_offset
    AND source_offset < end_offset AND kind IN ('waiting', 'unrecorded', 'differing')
  )
ORDER BY parts.partition, start_offset
"""
_BATCHES = """
SELECT parts.partition, start_offset, end_offset
FROM ledger.batch_partitions AS parts JOIN ledger.batches USING (batch_id)
WHERE topic = %s AND topic_id = %s AND consumer_group = %s
ORDER BY parts.partition, start_offset
"""


@dataclass
class LedgerCheck:
    """On a connection of its own, which holds what it compares; `group` is the scoring's."""

    connection: Connection
    name: str
    group: str
    notes: list[str] = field(default_factory=list)
    _reader: PredictionReader = field(default_factory=PredictionReader)
    _lines: list[bytes] = field(default_factory=list)
    _foreign: dict[str, str] = field(default_factory=dict)
    _elsewhere: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    expired: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(INCOMING)
            cursor.execute(_EXPECTED)
            cursor.execute(_BOUNDS)

    def look_at(self, message: Message, headers: Headers | None, place: Place | None, *, is_due: bool) -> None:
        """A message of the output topic; one that is due must be a row."""
        row = self._reader.read(message, [*headers] if headers else None)
        # By place: the output may be read twice.
        at = f"{message.topic()}/{message.partition()}/{message.offset()}"
        if isinstance(row, Refusal):
            self._foreign[at] = str(row)
        elif is_due:
            self._lines.append(row.line)
            if len(self._lines) >= _AT_ONCE:
                self._write()
        elif place is not None:
            self._elsewhere.setdefault((place.topic, place.partition), []).append(at)

    def _write(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(b"".join(self._lines)))
            cursor.execute(_EXPECT)
        self._lines.clear()

    def judge(
        self, source: Topic, window: Windows, output: Topic, output_low: Mapping[int, int], show: int
    ) -> LedgerVerdict:
        """`output_low`: where the output topic's partitions begin; rows of what expired there cannot be judged."""
        self._write()
        with self.connection, self.connection.cursor() as cursor:
            bounds = [(partition, start, end) for partition, (start, end) in window.items()]
            cursor.executemany("INSERT INTO checked VALUES (%s, %s, %s)", bounds)
            cursor.executemany("INSERT INTO retained VALUES (%s, %s)", list(output_low.items()))
            names = {
                "source": source.name, "source_id": source.topic_id,
                "output": output.name, "output_id": output.topic_id,
            }  # fmt: skip
            cursor.execute(_JUDGE, names)
            cursor.execute(_COUNT)
            counts = {(partition, kind): count for partition, kind, count in cursor.fetchall()}
            found = {kind: self._find(cursor, kind, source.name, output.name, show) for kind in LEDGER_KINDS[:3]}
            gaps = dict(self._gaps(cursor, source, window))
            cursor.execute(_MISCOUNTED, names | {"group": self.group})
            miscounted = cursor.fetchall()
            cursor.execute(_EXPIRED)
            self.expired = cursor.fetchall()
            self._judge_elsewhere(cursor)
        for kind, why in _PASSED_OVER.items():
            if count := sum(number for (_, found), number in counts.items() if found == kind):
                self.notes.append(f"{count:,} rows are passed over: {why}")
        miscounts = Counter(row[0] for row in miscounted)
        unbatched = [
            Finding(f"{source.name}/{partition}", None, f"offsets [{start}, {end})")
            for partition, ranges in gaps.items()
            for start, end in ranges
        ]
        places = sorted(self._foreign.items())
        return LedgerVerdict(
            address=self.name,
            partitions=tuple(
                _partition(number, counts, gaps.get(number, []), miscounts[number])
                for number in sorted(window)
            ),
            foreign_count=len(places),
            foreign=tuple(Finding(place, None, reason) for place, reason in places[:show]),
            unrecorded=found["unrecorded"],
            differing=found["differing"],
            unfounded=found["unfounded"],
            unbatched=tuple(unbatched[:show]),
            miscounted=tuple(
                Finding(
                    f"{source.name}/{partition}", None,
                    f"batch {batch}, offsets [{start}, {end}): {scored} scored, {rows} rows",
                )
                for partition, batch, start, end, scored, rows in miscounted[:show]
            ),
        )  # fmt: skip

    def _judge_elsewhere(self, cursor: Cursor) -> None:
        """Sources that are not checked here are another check's; but of some no batch ever was."""
        cursor.execute(
            "SELECT DISTINCT topic, parts.partition FROM ledger.batch_partitions AS parts "
            "JOIN ledger.batches USING (batch_id)"
        )
        known = set(cursor.fetchall())
        for (topic, partition), places in self._elsewhere.items():
            if (topic, partition) not in known:
                why = f"its source is on {topic}/{partition}, of which no batch was scored"
                self._foreign |= dict.fromkeys(places, why)

    def _find(self, cursor: Cursor, kind: str, source: str, output: str, show: int) -> tuple[Finding, ...]:
        cursor.execute(_FIND, (kind, show))
        return tuple(
            Finding(f"{source}/{partition}/{offset}", row, f"at {output}/{output_partition}/{output_offset}")
            for partition, offset, row, output_partition, output_offset in cursor.fetchall()
        )

    def _gaps(self, cursor: Cursor, source: Topic, window: Windows) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """By partition, which offsets no batch record holds; behind the newest record they only wait for theirs."""
        cursor.execute(_BATCHES, (source.name, source.topic_id, self.group))
        batches: dict[int, list[tuple[int, int]]] = {}
        for partition, start, end in cursor.fetchall():
            batches.setdefault(partition, []).append((start, end))
        for partition, (start, end) in window.items():
            gaps, reached = [], start
            for since, until in batches.get(partition, []):
                if reached < since:
                    gaps.append((reached, min(since, end)))
                reached = max(reached, until)
                if reached >= end:
                    break
            if reached < end:
                self.notes.append(f"{source.name}/{partition}: no batch record yet of offsets [{reached}, {end})")
            yield partition, [gap for gap in gaps if gap[0] < gap[1]]


def _partition(
    number: int, counts: Mapping[tuple[int, str], int], gaps: list[tuple[int, int]], miscounted: int
) -> LedgerPartition:
    def count(*kinds: str) -> int:
        return sum(counts.get((number, kind), 0) for kind in kinds)

    return LedgerPartition(
        partition=number,
        rows=count("right", "differing", "unfounded", "expired"),
        waiting=count("waiting"),
        unrecorded=count("unrecorded"),
        differing=count("differing"),
        unfounded=count("unfounded"),
        unbatched=sum(end - start for start, end in gaps),
        miscounted=miscounted,
    )
