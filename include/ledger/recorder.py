"""Record the output topic in the ledger: each committed prediction once, from the offsets that the database has."""

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

# Rows of one transaction.
_HELD_ROWS = 20_000


@dataclass(frozen=True)
class RecordingResult:
    """What one run recorded.

    `ranges` are the offsets `[start, end)` of the output topic by partition, `messages` the messages in them, `rows`
    the rows that are new or changed.
    """

    ranges: Mapping[int, tuple[int, int]]
    messages: int
    rows: int
    dead_letters: int


def record(
    cluster: Cluster,
    settings: Settings,
    ledger: LedgerConnection,
    count: Callable[[DeadLetterCounts], object] = lambda counts: None,
) -> RecordingResult:
    """Record all messages that are committed now, in transactions of a bounded size.

    The call may be killed and repeated at any time. `count` is called with the counts of messages whose dead letters
    are sent, even by a run that fails later, because no other run counts them again.

    Raise LedgerGapError, after all others are recorded, if messages were deleted before they were recorded. Raise
    GroupInUseError, LedgerError or ClusterError if the ledger's group, the database or Kafka cannot be used.
    """
    cluster.require_unused_group(settings.ledger_group, "FRAUD_LEDGER_GROUP")
    topic = cluster.describe_topic(settings.output_topic)
    with (
        ConsumerGroup.open(cluster, settings.ledger_group, topic) as group,
        open_ledger(ledger, f"fraud record {topic.name}") as connection,
    ):
        table = Predictions(connection, topic)
        # Only now, after the sessions of older recorders have ended: these may have recorded up to a moment ago, and an
        # older end offset would make the topic look truncated.
        first = cluster.first_offsets(topic.name, topic.partitions)
        end = cluster.last_stable_offsets(topic.name, topic.partitions)
        start, lost = _find_start(topic, table.recorded, first, end)
        has_unreported = table.store_lost(lost)
        dead_letters = OutputDeadLetters(group, settings, first, recover_offsets(group), start, count)
        dead_letters.commit_start_offsets()
        ranges = {number: (start[number], end[number]) for number in topic.partitions if start[number] < end[number]}
        # Control records, aborted and expired messages take offsets too, so the end counts, not the last message read.
        next_offsets = {number: max(start[number], end[number]) for number in topic.partitions}
        # When the task times out, PostgreSQL may be waiting for another client's lock.
        with paused_collector(), BackgroundWriter(cancel=table.cancel) as writer:
            recording = _Recording(table, writer)
            for partition, messages in read_ranges(cluster, group.consumer, topic.name, ranges):
                recording.add(partition, messages, dead_letters)
            recording.finish(next_offsets)
        sent = dead_letters.send(next_offsets)
        if has_unreported and (lost := table.take_unreported_lost()):
            raise LedgerGapError(
                f"{topic.name}: {', '.join(map(str, lost))} were deleted before they were recorded, and are missing in "
                f"the ledger. All {recording.messages} messages that exist are recorded. `fraud reconcile` lists the "
                "missing payments while the input topic retains them. Keep messages on this topic for longer than the "
                "ledger may be down"
            )
    return RecordingResult(ranges, recording.messages, recording.rows, sent)


def _find_start(
    topic: Topic, recorded: Mapping[int, RecordedOffset], first: Mapping[int, int], end: Mapping[int, int]
) -> tuple[dict[int, int], list[LostOffsets]]:
    """Return the offset from which to read each partition, and the offsets that are lost.

    In doubt the start is too early: to record a message again changes nothing.
    """
    # A recreated topic may have fewer partitions than the deleted one.
    deleted = {partition: known for partition, known in recorded.items() if known.topic_id != topic.topic_id}
    lost = [LostOffsets(known.topic_id, partition, known.next_offset, None) for partition, known in deleted.items()]
    starts = {}
    for partition in topic.partitions:
        known = recorded.get(partition)
        starts[partition] = first[partition]
        if known is None or partition in deleted:
            continue
        if known.next_offset > end[partition]:
            log.warning(
                "%s/%s: recorded offset %s is past the end offset %s: the topic was truncated. The partition is "
                "recorded from its first offset %s",
                topic.name, partition, known.next_offset, end[partition], first[partition],
            )  # fmt: skip
        elif known.next_offset < first[partition]:
            lost.append(LostOffsets(known.topic_id, partition, known.next_offset, first[partition]))
        else:
            starts[partition] = known.next_offset
    return starts, lost


@dataclass
class _RowChunk:
    """The rows of one transaction, and the next offset to record of each partition that it covers."""

    lines: dict[tuple[bytes, ...], bytes] = field(default_factory=dict)
    next_offsets: dict[int, int] = field(default_factory=dict)
    bytes: int = 0


class _Recording:
    """Convert messages to chunks of rows, and write these to the table. Read `rows` after the writer has ended."""

    def __init__(self, table: Predictions, writer: BackgroundWriter) -> None:
        self.messages = self.rows = 0
        self._table = table
        self._writer = writer
        self._chunk = _RowChunk()
        self._reader = PredictionReader()

    def add(self, partition: int, messages: list[Message], dead_letters: OutputDeadLetters) -> None:
        """Convert messages of one partition, and tell `dead_letters` which of them are not predictions."""
        read, chunk = self._reader.read, self._chunk
        dead_letters.count_messages(partition, messages)
        for message in messages:
            row, offset = read(message, headers_of(message)), message.offset() or 0
            if isinstance(row, Refusal):
                dead_letters.add(partition, offset)
                continue
            # One INSERT cannot write a row twice, so another prediction of the same payment begins the next chunk.
            if row.key in chunk.lines or len(chunk.lines) >= _HELD_ROWS or chunk.bytes >= MAX_BUFFERED_BYTES:
                chunk.next_offsets[partition] = offset
                chunk = self._submit()
            chunk.lines[row.key] = row.line
            chunk.bytes += len(row.line)
        chunk.next_offsets[partition] = (messages[-1].offset() or 0) + 1
        self.messages += len(messages)

    def finish(self, next_offsets: Mapping[int, int]) -> None:
        """Write the last chunk, with the offsets that the table does not have yet."""
        self._writer.wait()
        new = dict(item for item in next_offsets.items() if not self._table.is_recorded_to(*item))
        if new or self._chunk.lines:
            self._chunk.next_offsets |= new
            self._submit()

    def _submit(self) -> _RowChunk:
        """Give the chunk to the writer, and return a new one."""
        self._writer.submit(self._write, self._chunk)
        self._chunk = _RowChunk()
        return self._chunk

    def _write(self, chunk: _RowChunk) -> None:
        self.rows += self._table.write(list(chunk.lines.values()), chunk.next_offsets)
