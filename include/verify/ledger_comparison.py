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

from include.kafka.cluster import Topic
from include.ledger.prediction_row import PredictionReader
from include.ledger.predictions import COPY, INCOMING
from include.payments.refusal import Refusal
from include.verify import ledger_queries as queries
from include.verify.expected_message import Headers, MessageSource
from include.verify.findings import LEDGER_KINDS, Finding, LedgerPartition, LedgerVerdict
from include.verify.reading import Windows

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_AT_ONCE_BYTES = 16_000_000
_PASSED_OVER = {
    "expired": "their messages expired on the output topic",
    "earlier": "their payments stood on an earlier input topic of that name",
}


@dataclass
class LedgerCheck:
    """On a connection of its own, which holds what it compares; `group` is the scoring's."""

    connection: Connection
    name: str
    group: str
    notes: list[str] = field(default_factory=list)
    _reader: PredictionReader = field(default_factory=PredictionReader)
    _lines: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _letters: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _foreign: dict[str, str] = field(default_factory=dict)
    _elsewhere: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    expired: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(INCOMING)
            cursor.execute(queries.EXPECTED)
            cursor.execute(queries.BOUNDS)

    def look_at(self, message: Message, headers: Headers | None, place: MessageSource | None, *, is_due: bool) -> None:
        """A message of the output topic; one that is due must be a row."""
        row = self._reader.read(message, [*headers] if headers else None)
        # By place: the output may be read twice.
        at = f"{message.topic()}/{message.partition()}/{message.offset()}"
        if isinstance(row, Refusal):
            self._foreign[at] = str(row)
        elif is_due:
            self._lines.append(row.line)
            self._bytes += len(row.line)
            if self._bytes >= _AT_ONCE_BYTES:
                self._write()
        elif place is not None:
            self._elsewhere.setdefault((place.topic, place.partition), []).append(at)

    def _write(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(b"".join(self._lines)))
            cursor.execute(queries.EXPECT)
        self._lines.clear()
        self._bytes = 0

    def look_at_letter(self, message: Message, place: MessageSource) -> None:
        """A dead letter of a payment that is checked."""
        at = f"{message.partition()}/{message.offset()}"
        self._letters[at] = place.partition, place.offset, place.batch.replace("\0", "")

    def judge(
        self,
        source: Topic,
        window: Windows,
        output: Topic,
        output_low: Mapping[int, int],
        show: int,
        *,
        all_letters: bool,
    ) -> LedgerVerdict:
        """`output_low`: where the output topic's partitions begin; rows of what expired there cannot be judged.
        `all_letters`: none has expired, so that they can be counted."""
        from psycopg2.extras import execute_values

        self._write()
        with self.connection, self.connection.cursor() as cursor:
            bounds = [(partition, start, end) for partition, (start, end) in window.items()]
            cursor.executemany("INSERT INTO checked VALUES (%s, %s, %s)", bounds)
            cursor.executemany("INSERT INTO retained VALUES (%s, %s)", list(output_low.items()))
            names = {
                "source": source.name, "source_id": source.topic_id,
                "output": output.name, "output_id": output.topic_id,
            }  # fmt: skip
            cursor.execute(queries.JUDGE, names)
            cursor.execute(queries.COUNT)
            counts = {(partition, kind): count for partition, kind, count in cursor.fetchall()}
            found = {kind: self._find(cursor, kind, source.name, output.name, show) for kind in LEDGER_KINDS[:3]}
            gaps = dict(self._gaps(cursor, source, window))
            execute_values(cursor, "INSERT INTO letters VALUES %s", list(self._letters.values()), page_size=1_000)
            cursor.execute(queries.PREPARE)
            cursor.execute(queries.MISCOUNTED, names | {"group": self.group, "all_letters": all_letters})
            miscounted = cursor.fetchall()
            cursor.execute(queries.EXPIRED)
            self.expired = cursor.fetchall()
            self._judge_elsewhere(cursor)
            cursor.execute(queries.LOST, (output.name,))
            (lost,) = cursor.fetchone() or (0,)
        if lost:
            self.notes.append(
                f"{output.name}: {lost} ranges of offsets were gone before they could be recorded: payments that are "
                "missing here may have come out there (`fraud ledger show`)"
            )
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
                Finding(f"{source.name}/{partition}", None, f"batch {batch}, offsets [{start}, {end}): {counts}")
                for partition, batch, start, end, counts in miscounted[:show]
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
        cursor.execute(queries.FIND, (kind, show))
        return tuple(
            Finding(f"{source}/{partition}/{offset}", row, f"at {output}/{output_partition}/{output_offset}")
            for partition, offset, row, output_partition, output_offset in cursor.fetchall()
        )

    def _gaps(self, cursor: Cursor, source: Topic, window: Windows) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """By partition, which offsets no batch record holds; behind the newest record they only wait for theirs."""
        cursor.execute(queries.BATCHES, (source.name, source.topic_id, self.group))
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
