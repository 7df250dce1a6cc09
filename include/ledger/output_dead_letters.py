"""What stands on the output topic and is no prediction, as dead letters; and the group's offsets, for lag tools.

Both in one kafka transaction for each partition, after the database's: so each is sent once, wherever a run dies. The
group's offset says how far dead letters were sent, and nothing else: what is recorded, the database says.
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

# Of one kafka transaction, which has five minutes; and of a message without its value, roughly.
_PORTION_BYTES = 16_000_000
_LETTER_BYTES = 1_000


@dataclass(frozen=True)
class _Portion:
    """What one kafka transaction sends: the offset that it reaches, and the messages up to there, as they count."""

    letters: list[OutgoingMessage]
    reached: int
    counts: DeadLetterCounts


@dataclass
class OutputDeadLetters:
    """By partition, `first` is what the topic still holds, `committed` where the group stands, and `judged` from where
    on this run looks at all messages. `count` is called with each portion that was sent; over all runs, each message
    is counted once."""

    group: ConsumerGroup
    settings: Settings
    first: Mapping[int, int]
    committed: dict[int, CommittedOffset]
    judged: Mapping[int, int]
    count: Callable[[DeadLetterCounts], object]
    foreign: dict[int, list[int]] = field(default_factory=dict)
    messages: Counter[int] = field(default_factory=Counter)

    def begin(self) -> None:
        """Where the group has no offset that means anything, it gets this run's first one: from there on it tells what
        was sent, even of a run that dies."""
        self._commit({at: start for at, start in self.judged.items() if self._sent_to(at) is None})

    def read(self, partition: int, messages: Sequence[Message]) -> None:
        """Messages in the order of their offsets, predictions among them. Those that an earlier run was done with do
        not count: a ledger that was set back reads them again."""
        sent_to = self._sent_to(partition) or 0
        if (messages[0].offset() or 0) < sent_to:
            messages = [message for message in messages if (message.offset() or 0) >= sent_to]
        self.messages[partition] += len(messages)

    def saw(self, partition: int, offset: int) -> None:
        """A message that is no prediction."""
        self.foreign.setdefault(partition, []).append(offset)

    def send(self, recorded: Mapping[int, int]) -> int:
        """Up to where the database is; how many."""
        due = {}
        for partition, end in recorded.items():
            sent_to = self._sent_to(partition)
            if sent_to is None or sent_to < end:
                due[partition] = end
        return self._commit(due)

    def _sent_to(self, partition: int) -> int | None:
        now = self.committed[partition]
        is_ours = now.note is not None and now.note.topic_id == self.group.topic.topic_id
        return now.offset if is_ours else None

    def _commit(self, ends: Mapping[int, int]) -> int:
        if not ends:
            return 0
        sent, failed = 0, []
        for producers in self.group.fence(sorted(ends)):
            for partition in producers:
                end = ends[partition]
                try:
                    if not self._is_done_by_another(partition, end):
                        sent += self._send(producers[partition], partition, end)
                except ClusterError as error:
                    # The others go on: the next run does this one again.
                    failed.append(error)
        if failed:
            raise failed[0]
        return sent

    def _send(self, producer: Producer, partition: int, end: int) -> int:
        """In kafka transactions of a bounded size, each of which moves the offset on."""
        sent = 0
        for portion in self._portions(partition, end):
            reached = portion.reached
            at = datetime.now(UTC).isoformat(timespec="seconds")
            note = CommitNote(f"recorded to {reached}", self.group.topic.topic_id, at)
            Transaction(producer, self.group, partition).run(portion.letters, reached, note)
            before = self.committed[partition]
            self.committed[partition] = self.group.await_commit(partition, reached, note, before)
            self.count(portion.counts)
            sent += len(portion.letters)
        return sent

    def _portions(self, partition: int, end: int) -> Iterator[_Portion]:
        letters: list[OutgoingMessage] = []
        reasons: Counter[str] = Counter()
        size = messages = earlier = 0
        for message, headers, reason in self._messages(partition, end):
            messages += 1
            if reason is None:
                continue
            letter = self._letter(message, headers, reason)
            letters.append(letter)
            reasons[reason.code] += 1
            size += len(letter[2] or b"") + _LETTER_BYTES
            if size >= _PORTION_BYTES:
                counts = DeadLetterCounts(messages, len(letters), dict(reasons))
                yield _Portion(letters, (message.offset() or 0) + 1, counts)
                earlier += messages
                letters, reasons, size, messages = [], Counter(), 0, 0
        # Before the first letter and behind the last one, they are not read again.
        messages = max(messages, self.messages[partition] - earlier)
        yield _Portion(letters, end, DeadLetterCounts(messages, len(letters), dict(reasons)))

    def _is_done_by_another(self, partition: int, end: int) -> bool:
        """Read after the fence: nobody who was at work before can send anything any more."""
        self.committed |= self.group.committed_offsets([partition])
        sent_to = self._sent_to(partition)
        return sent_to is not None and sent_to >= end

    def _messages(self, partition: int, end: int) -> Iterator[tuple[Message, Headers | None, Refusal | None]]:
        """Read again from the first letter to the last, for a run may have died before it sent them; a prediction has
        no refusal."""
        since = self._sent_to(partition)
        if since is None:
            return
        since = max(since, self.first[partition])
        if since >= self.judged[partition]:
            places = [place for place in self.foreign.get(partition, []) if since <= place < end]
            if not places:
                return
            since, end = places[0], places[-1] + 1
        reader, cluster, topic = PredictionReader(), self.group.cluster, self.group.topic.name
        with cluster.consumer(self.group.name) as consumer:
            for _, messages in read_ranges(cluster, consumer, topic, {partition: (since, end)}):
                for message in messages:
                    headers = headers_of(message)
                    read = reader.read(message, headers)
                    yield message, headers, read if isinstance(read, Refusal) else None

    def _letter(self, message: Message, headers: Headers | None, reason: Refusal) -> OutgoingMessage:
        source = f"{self.group.topic.name}/{message.partition()}/{message.offset()}"
        own: Headers = [("reason", str(reason).encode()), ("source", source.encode())]
        return self.settings.output_dead_letter_topic, message.key(), message.value(), [*(headers or []), *own]
