"""Records the output topic: each committed prediction once, from where the database says that recording stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Message

from include.batch.background_writer import BackgroundWriter
from include.batch.chunks import MAX_BUFFERED_BYTES, paused_collector
from include.batch.dead_letter_counts import DeadLetterCounts
from include.errors import LedgerGapError
from include.kafka.cluster import Cluster, Topic
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.group_admin import recover_offsets
from include.kafka.headers import headers_of
from include.kafka.range_reader import read_ranges
from include.ledger.connection import LedgerConnection
from include.ledger.output_dead_letters import OutputDeadLetters
from include.ledger.prediction_row import PredictionReader
from include.ledger.predictions import LostOffsets, Predictions, RecordedOffset
from include.ledger.schema import open_ledger
from include.payments.refusal import Refusal
from include.settings import Settings

log = logging.getLogger(__name__)

# Of one transaction.
_HELD_ROWS = 20_000


@dataclass(frozen=True)
class Recorded:
    """`rows` are new or other than before; `ranges` are the offsets `[start, end)` of the output topic."""

    ranges: Mapping[int, tuple[int, int]]
    messages: int
    rows: int
    dead_letters: int


def record(
    cluster: Cluster,
    settings: Settings,
    address: LedgerConnection,
    count: Callable[[DeadLetterCounts], object] = lambda counts: None,
) -> Recorded:
    """All that is committed now, in transactions of a bounded size; may be repeated, and killed, at any time.

    `count` is called with the messages that are done, once their dead letters are sent: also those of a run that
    fails later, because no other run sends them again.

    Raises LedgerGapError, once all else is recorded, where messages were gone before they could be.
    """
    cluster.require_unused_group(settings.ledger_group, "FRAUD_LEDGER_GROUP")
    topic = cluster.describe_topic(settings.output_topic)
    with (
        ConsumerGroup.open(cluster, settings.ledger_group, topic) as group,
        open_ledger(address, f"fraud record {topic.name}") as connection,
    ):
        table = Predictions(connection, topic)
        # After the take-over: what an older recorder has still written must not look as if it lay ahead of the end.
        first = cluster.first_offsets(topic.name, topic.partitions)
        end = cluster.last_stable_offsets(topic.name, topic.partitions)
        start, lost = _starts(topic, table.recorded, first, end)
        has_lost = table.note_lost(lost)
        committed = recover_offsets(group)
        letters = OutputDeadLetters(group, settings, first, committed, start, count)
        letters.begin()
        ranges = {at: (start[at], end[at]) for at in topic.partitions if start[at] < end[at]}
        # Control records and aborted messages take offsets as well, and so does what expired.
        reached = {at: max(start[at], end[at]) for at in topic.partitions}
        # If the task's time is up, PostgreSQL may be waiting for another client's lock.
        with paused_collector(), BackgroundWriter(cancel=table.cancel) as writer:
            recording = _Recording(table, writer)
            for partition, messages in read_ranges(cluster, group.consumer, topic.name, ranges):
                recording.add(partition, messages, letters)
            recording.finish(reached)
        sent = letters.send(reached)
        if has_lost and (lost := table.tell_lost()):
            raise LedgerGapError(
                f"{topic.name}: gone before it could be recorded, and missing in the ledger: "
                f"{', '.join(map(str, lost))}. All {recording.messages} messages that are there are recorded. While "
                "the input topic holds their payments, `fraud reconcile` names them; this topic must be kept for "
                "longer than the ledger can be away"
            )
    return Recorded(ranges, recording.messages, recording.rows, sent)


def _starts(
    topic: Topic, recorded: Mapping[int, RecordedOffset], first: Mapping[int, int], end: Mapping[int, int]
) -> tuple[dict[int, int], list[LostOffsets]]:
    """Where to go on, and what is gone. To read too much is never wrong: what is known stays as it is."""
    # The topic that was made again may have fewer partitions.
    earlier = {partition: known for partition, known in recorded.items() if known.topic_id != topic.topic_id}
    lost = [LostOffsets(known.topic_id, partition, known.next_offset, None) for partition, known in earlier.items()]
    starts = {}
    for partition in topic.partitions:
        known = recorded.get(partition)
        starts[partition] = low = first[partition]
        if known is None or partition in earlier:
            continue
        if known.next_offset > end[partition]:
            log.warning("%s/%s was truncated: it is recorded from its start", topic.name, partition)
        elif known.next_offset < low:
            lost.append(LostOffsets(known.topic_id, partition, known.next_offset, low))
        else:
            starts[partition] = known.next_offset
    return starts, lost


@dataclass
class _RecordedChunk:
    lines: dict[tuple[bytes, ...], bytes] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    bytes: int = 0


class _Recording:
    """Decode messages into chunks and write these to the table. Read `rows` once the writer has ended."""

    def __init__(self, table: Predictions, writer: BackgroundWriter) -> None:
        self.messages = self.rows = 0
        self._table = table
        self._writer = writer
        self._chunk = _RecordedChunk()
        self._reader = PredictionReader()

    def add(self, partition: int, messages: list[Message], letters: OutputDeadLetters) -> None:
        read, chunk = self._reader.read, self._chunk
        letters.read(partition, messages)
        for message in messages:
            row, offset = read(message, headers_of(message)), message.offset() or 0
            if isinstance(row, Refusal):
                letters.saw(partition, offset)
                continue
            # One statement cannot write a row twice, so a payment that comes again begins the next chunk.
            if row.key in chunk.lines or len(chunk.lines) >= _HELD_ROWS or chunk.bytes >= MAX_BUFFERED_BYTES:
                chunk.ends[partition] = offset
                chunk = self._next()
            chunk.lines[row.key] = row.line
            chunk.bytes += len(row.line)
        chunk.ends[partition] = (messages[-1].offset() or 0) + 1
        self.messages += len(messages)

    def finish(self, ends: Mapping[int, int]) -> None:
        """Write the last chunk, with the ends of the partitions that the table does not have yet."""
        self._writer.wait()
        new = {at: end for at, end in ends.items() if not self._table.is_at(at, end)}
        if new or self._chunk.lines:
            self._chunk.ends |= new
            self._next()

    def _next(self) -> _RecordedChunk:
        self._writer.submit(self._write, self._chunk)
        self._chunk = _RecordedChunk()
        return self._chunk

    def _write(self, chunk: _RecordedChunk) -> None:
        self.rows += self._table.write(list(chunk.lines.values()), chunk.ends)
