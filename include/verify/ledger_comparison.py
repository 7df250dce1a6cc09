"""Compares the ledger with the output topic: each prediction there must be a row, and each row such a prediction.

The messages of the output topic are copied into a temporary table as rows of the same types; PostgreSQL compares them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from confluent_kafka import Message

from include.kafka.cluster import Topic
from include.ledger.prediction_row import PredictionReader
from include.ledger.predictions import COPY, INCOMING
from include.payments.refusal import Refusal
from include.verify import ledger_queries as queries
from include.verify.expected_message import Headers, MessageSource
from include.verify.finding_list import position
from include.verify.findings import LEDGER_KINDS, Finding, LedgerPartitionCounts, LedgerReport
from include.verify.window_reader import Windows

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_COPY_BYTES = 16_000_000
_UNCOMPARED_ROWS = {
    "expired": "their messages expired on the output topic",
    "earlier": "their payments were on an earlier input topic of that name",
}
_Ranges = list[tuple[int, int]]


class LedgerComparison:
    """A comparison on a connection of its own, whose temporary tables hold the messages. `group` is the scoring's."""

    def __init__(self, connection: Connection, name: str, group: str) -> None:
        self.connection = connection
        self.name = name
        self.group = group
        self.notes: list[str] = []
        self.expired: list[tuple[int, int, int]] = []
        self._reader = PredictionReader()
        self._lines: list[bytes] = []
        self._bytes = 0
        # By position, because a message may be read twice.
        self._dead_letters: dict[str, tuple[int, int, str]] = {}
        self._foreign: dict[str, str] = {}
        self._other_sources: dict[tuple[str, int], list[str]] = {}
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(INCOMING)
            cursor.execute(queries.CREATE_EXPECTED)
            cursor.execute(queries.CREATE_BOUNDS)

    def add_output(
        self, message: Message, headers: Headers | None, source: MessageSource | None, *, is_due: bool
    ) -> None:
        """Add a message of the output topic. If it is due, the ledger must have its row."""
        row = self._reader.read(message, [*headers] if headers else None)
        if isinstance(row, Refusal):
            self._foreign[position(message)] = str(row)
        elif is_due:
            self._lines.append(row.line)
            self._bytes += len(row.line)
            if self._bytes >= _COPY_BYTES:
                self._copy_lines()
        elif source is not None:
            self._other_sources.setdefault((source.topic, source.partition), []).append(position(message))

    def _copy_lines(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(b"".join(self._lines)))
            cursor.execute(queries.ADD_EXPECTED)
        self._lines.clear()
        self._bytes = 0

    def add_dead_letter(self, message: Message, source: MessageSource) -> None:
        """Add a dead letter whose source is in the window."""
        # PostgreSQL's text cannot hold NUL.
        batch = source.batch.replace("\0", "")
        self._dead_letters[position(message)] = source.partition, source.offset, batch

    def compare(
        self,
        source: Topic,
        window: Windows,
        output: Topic,
        output_low: Mapping[int, int],
        show: int,
        *,
        has_all_letters: bool,
    ) -> LedgerReport:
        """Compare what was added with the ledger's rows of the window.

        `output_low` are the first retained offsets of the output topic: rows of earlier messages cannot be compared.
        `has_all_letters` is True if no dead letter has expired, so that they can be counted. The report lists at most
        `show` findings of each kind.
        """
        from psycopg2.extras import execute_values

        self._copy_lines()
        names = {
            "source": source.name,
            "source_id": source.topic_id,
            "output": output.name,
            "output_id": output.topic_id,
        }
        with self.connection, self.connection.cursor() as cursor:
            bounds = [(partition, start, end) for partition, (start, end) in window.items()]
            cursor.executemany("INSERT INTO checked VALUES (%s, %s, %s)", bounds)
            cursor.executemany("INSERT INTO retained VALUES (%s, %s)", list(output_low.items()))
            cursor.execute(queries.COMPARE, names)
            cursor.execute(queries.COUNT)
            counts = {(partition, kind): count for partition, kind, count in cursor.fetchall()}
            findings = {kind: self._list(cursor, kind, source.name, output.name, show) for kind in LEDGER_KINDS[:3]}
            gaps = dict(self._find_gaps(cursor, source, window))
            execute_values(cursor, "INSERT INTO letters VALUES %s", list(self._dead_letters.values()), page_size=1_000)
            cursor.execute(queries.INDEX)
            cursor.execute(queries.MISCOUNTED, names | {"group": self.group, "all_letters": has_all_letters})
            miscounted = cursor.fetchall()
            cursor.execute(queries.EXPIRED)
            self.expired = cursor.fetchall()
            self._check_other_sources(cursor)
            cursor.execute(queries.LOST, (output.name,))
            (lost,) = cursor.fetchone() or (0,)
        if lost:
            self.notes.append(
                f"{output.name}: {lost} ranges of offsets expired before they were recorded: payments that are "
                "missing here may have come out there (`fraud ledger show`)"
            )
        for kind, reason in _UNCOMPARED_ROWS.items():
            if count := sum(number for (_, found), number in counts.items() if found == kind):
                self.notes.append(f"{count:,} rows are not compared: {reason}")
        miscounts = Counter(row[0] for row in miscounted)
        unbatched = [
            Finding(f"{source.name}/{partition}", None, f"offsets [{start}, {end})")
            for partition, ranges in gaps.items()
            for start, end in ranges
        ]
        foreign = sorted(self._foreign.items())
        return LedgerReport(
            address=self.name,
            partitions=tuple(
                _count_partition(number, counts, gaps.get(number, []), miscounts[number]) for number in sorted(window)
            ),
            foreign_count=len(foreign),
            foreign=tuple(Finding(at, None, reason) for at, reason in foreign[:show]),
            unrecorded=findings["unrecorded"],
            differing=findings["differing"],
            unfounded=findings["unfounded"],
            unbatched=tuple(unbatched[:show]),
            miscounted=tuple(
                Finding(f"{source.name}/{partition}", None, f"batch {batch}, offsets [{start}, {end}): {difference}")
                for partition, batch, start, end, difference in miscounted[:show]
            ),
        )

    def _check_other_sources(self, cursor: Cursor) -> None:
        """Add as foreign the messages whose source is on a partition of which no batch was scored."""
        cursor.execute(queries.SCORED_PARTITIONS)
        scored = set(cursor.fetchall())
        for (topic, partition), positions in self._other_sources.items():
            if (topic, partition) not in scored:
                reason = f"its source is on {topic}/{partition}, of which no batch was scored"
                self._foreign |= dict.fromkeys(positions, reason)

    def _list(self, cursor: Cursor, kind: str, source: str, output: str, show: int) -> tuple[Finding, ...]:
        cursor.execute(queries.LIST, (kind, show))
        return tuple(
            Finding(f"{source}/{partition}/{offset}", row, f"at {output}/{output_partition}/{output_offset}")
            for partition, offset, row, output_partition, output_offset in cursor.fetchall()
        )

    def _find_gaps(self, cursor: Cursor, source: Topic, window: Windows) -> Iterator[tuple[int, _Ranges]]:
        """Yield each partition and its ranges of offsets that are in no batch record.

        Offsets after the newest batch record are no gap but get a note, because their record may not be stored yet.
        """
        cursor.execute(queries.BATCHES, (source.name, source.topic_id, self.group))
        batches: dict[int, _Ranges] = {}
        for partition, start, end in cursor.fetchall():
            batches.setdefault(partition, []).append((start, end))
        for partition, (start, end) in window.items():
            gaps, next_offset = [], start
            for batch_start, batch_end in batches.get(partition, []):
                if next_offset < batch_start:
                    gaps.append((next_offset, min(batch_start, end)))
                next_offset = max(next_offset, batch_end)
                if next_offset >= end:
                    break
            if next_offset < end:
                self.notes.append(f"{source.name}/{partition}: no batch record yet of offsets [{next_offset}, {end})")
            yield partition, [gap for gap in gaps if gap[0] < gap[1]]


def _count_partition(
    number: int, counts: Mapping[tuple[int, str], int], gaps: _Ranges, miscounted: int
) -> LedgerPartitionCounts:
    def count(*kinds: str) -> int:
        return sum(counts.get((number, kind), 0) for kind in kinds)

    return LedgerPartitionCounts(
        partition=number,
        rows=count("right", "differing", "unfounded", "expired"),
        waiting=count("waiting"),
        unrecorded=count("unrecorded"),
        differing=count("differing"),
        unfounded=count("unfounded"),
        unbatched=sum(end - start for start, end in gaps),
        miscounted=miscounted,
    )
