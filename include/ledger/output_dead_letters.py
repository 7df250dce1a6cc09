"""Send the output topic's messages that are not predictions to its dead-letter topic, exactly once.

Each partition's dead letters and the group's offset are committed in one Kafka transaction, after the database's. The
group's offset says how far dead letters were sent, which lag tools can show; how far predictions are recorded, only the
database says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confluent_kafka import Message, Producer

from include.batch.dead_letter_counts import DeadLetterCounts
from include.errors import ClusterError
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.headers import Headers, headers_of
from include.kafka.range_reader import read_ranges
from include.kafka.transaction import OutgoingMessage, Transaction
from include.ledger.prediction_row import PredictionReader
from include.payments.refusal import Refusal
from include.settings import Settings

# A Kafka transaction times out after five minutes.
_TRANSACTION_BYTES = 16_000_000
# Approximate size of a message without its value.
_OVERHEAD_BYTES = 1_000


@dataclass(frozen=True)
class _TransactionContent:
    """The dead letters of one Kafka transaction, the offset that it commits, and the counts of messages before it."""

    dead_letters: list[OutgoingMessage]
    next_offset: int
    counts: DeadLetterCounts


@dataclass
class OutputDeadLetters:
    """The dead letters of one run of the recorder.

    By partition, `first_offsets` are the first that the topic retains, `committed` those of the group, and
    `start_offsets` those from which this run reads all messages. `count` is called after each transaction with its
    counts; over all runs, each message is counted once.
    """

    group: ConsumerGroup
    settings: Settings
    first_offsets: Mapping[int, int]
    committed: dict[int, CommittedOffset]
    start_offsets: Mapping[int, int]
    count: Callable[[DeadLetterCounts], object]
    foreign_offsets: dict[int, list[int]] = field(default_factory=dict)
    message_counts: Counter[int] = field(default_factory=Counter)

    def commit_start_offsets(self) -> None:
        """Commit this run's start offsets where the group has no offset of this topic.

        Even if this run dies, the next run then knows which messages have no dead letter yet.
        """
        self._commit({number: start for number, start in self.start_offsets.items() if self._sent_to(number) is None})

    def count_messages(self, partition: int, messages: Sequence[Message]) -> None:
        """Count messages in the order of their offsets, predictions included.

        Messages that an earlier run has counted are left out: a ledger that was restored reads them again.
        """
        sent_to = self._sent_to(partition) or 0
        if (messages[0].offset() or 0) < sent_to:
            messages = [message for message in messages if (message.offset() or 0) >= sent_to]
        self.message_counts[partition] += len(messages)

    def add(self, partition: int, offset: int) -> None:
        """Note the offset of a message that is not a prediction. Call it in the order of the offsets."""
        self.foreign_offsets.setdefault(partition, []).append(offset)

    def send(self, recorded: Mapping[int, int]) -> int:
        """Send the dead letters before the offsets that the database has recorded, and return how many.

        Raise ClusterError if a partition fails, after all others are done: the next run does it again.
        """
        end_offsets = {}
        for partition, end in recorded.items():
            sent_to = self._sent_to(partition)
            if sent_to is None or sent_to < end:
                end_offsets[partition] = end
        return self._commit(end_offsets)

    def _sent_to(self, partition: int) -> int | None:
        """Return the offset before which dead letters were sent; None if the group has no offset of this topic."""
        committed = self.committed[partition]
        is_of_topic = committed.note is not None and committed.note.topic_id == self.group.topic.topic_id
        return committed.offset if is_of_topic else None

    def _commit(self, end_offsets: Mapping[int, int]) -> int:
        if not end_offsets:
            return 0
        sent, errors = 0, []
        for producers in self.group.fence(sorted(end_offsets)):
            for partition in producers:
                end = end_offsets[partition]
                try:
                    if not self._is_sent_already(partition, end):
                        sent += self._send(producers[partition], partition, end)
                except ClusterError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return sent

    def _send(self, producer: Producer, partition: int, end: int) -> int:
        """Send a partition's dead letters in Kafka transactions of a bounded size, each of which commits an offset."""
        sent = 0
        for content in self._transaction_contents(partition, end):
            at = datetime.now(UTC).isoformat(timespec="seconds")
            note = CommitNote(f"recorded to {content.next_offset}", self.group.topic.topic_id, at)
            Transaction(producer, self.group, partition).run(content.dead_letters, content.next_offset, note)
            before = self.committed[partition]
            self.committed[partition] = self.group.await_commit(partition, content.next_offset, note, before)
            self.count(content.counts)
            sent += len(content.dead_letters)
        return sent

    def _transaction_contents(self, partition: int, end: int) -> Iterator[_TransactionContent]:
        dead_letters: list[OutgoingMessage] = []
        reasons: Counter[str] = Counter()
        size = messages = counted = 0
        for message, headers, refusal in self._messages(partition, end):
            messages += 1
            if refusal is None:
                continue
            dead_letter = self._dead_letter(message, headers, refusal)
            dead_letters.append(dead_letter)
            reasons[refusal.code] += 1
            size += len(dead_letter[2] or b"") + _OVERHEAD_BYTES
            if size >= _TRANSACTION_BYTES:
                counts = DeadLetterCounts(messages, len(dead_letters), dict(reasons))
                yield _TransactionContent(dead_letters, (message.offset() or 0) + 1, counts)
                counted += messages
                dead_letters, reasons, size, messages = [], Counter(), 0, 0
        # Messages before the first dead letter and behind the last one are counted but not read again.
        messages = max(messages, self.message_counts[partition] - counted)
        yield _TransactionContent(dead_letters, end, DeadLetterCounts(messages, len(dead_letters), dict(reasons)))

    def _is_sent_already(self, partition: int, end: int) -> bool:
        """Return whether another run has sent the dead letters before `end`.

        Call it after the fence, behind which no older run can commit any more.
        """
        self.committed |= self.group.committed_offsets([partition])
        sent_to = self._sent_to(partition)
        return sent_to is not None and sent_to >= end

    def _messages(self, partition: int, end: int) -> Iterator[tuple[Message, Headers | None, Refusal | None]]:
        """Read the messages from the first dead letter to the last again; the refusal of a prediction is None.

        If an earlier run died before it sent its dead letters, read from where it had sent them.
        """
        start = self._sent_to(partition)
        if start is None:
            return
        start = max(start, self.first_offsets[partition])
        if start >= self.start_offsets[partition]:
            offsets = [offset for offset in self.foreign_offsets.get(partition, []) if start <= offset < end]
            if not offsets:
                return
            start, end = offsets[0], offsets[-1] + 1
        reader, cluster, topic = PredictionReader(), self.group.cluster, self.group.topic.name
        with cluster.consumer(self.group.name) as consumer:
            for _, messages in read_ranges(cluster, consumer, topic, {partition: (start, end)}):
                for message in messages:
                    headers = headers_of(message)
                    row = reader.read(message, headers)
                    yield message, headers, row if isinstance(row, Refusal) else None

    def _dead_letter(self, message: Message, headers: Headers | None, refusal: Refusal) -> OutgoingMessage:
        source = f"{self.group.topic.name}/{message.partition()}/{message.offset()}"
        added: Headers = [("reason", str(refusal).encode()), ("source", source.encode())]
        return self.settings.output_dead_letter_topic, message.key(), message.value(), [*(headers or []), *added]
