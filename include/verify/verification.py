"""Proves from the topics alone that each payment of a window came out exactly once, as it came in.

1. The input's window is read, and of each message digests are kept of what it must become.
2. The output and the dead letters are read from the window's earliest time to where they end now, and what names a
   source in the window is counted against it.
3. What came never or more than once is listed, and of the first altered ones it is said what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import Message

from include.kafka.cluster import Cluster
from include.kafka.consumer_group import ConsumerGroup
from include.settings import Settings
from include.verify import expected_message as form
from include.verify.expected_message import MessageSource
from include.verify.findings import KINDS, Finding, LedgerVerdict, PartitionVerdict, VerifyReport
from include.verify.ledger_comparison import LedgerCheck
from include.verify.original_rows import OriginalRows
from include.verify.reading import OnProgress, Windows, read
from include.verify.tally import Tally
from include.verify.window import Bounds, windows

# How far the clocks of those who send payments may be ahead of ours.
_CLOCKS_APART_MS = 3_600_000
# Of how many doubled payments, and how often each, it is remembered where they came again.
_COPIES_KEPT = 1_000
_COPIES_LISTED = 10
_LATER_KEPT = 100_000


def verify(
    cluster: Cluster,
    settings: Settings,
    *,
    start: Bounds = Bounds(),  # noqa: B008
    end: Bounds = Bounds(),  # noqa: B008
    show: int = 20,
    on_progress: OnProgress = lambda text, share: None,
    ledger: LedgerCheck | None = None,
) -> VerifyReport:
    """By default from the first offset retained to the group's committed one. Raises ClusterError or SettingError where
    that cannot be checked. With `ledger` that is held against the output topic, too.
    """
    topic = cluster.describe_topic(settings.input_topic)
    with ConsumerGroup.open(cluster, settings.group, topic) as group:
        window, notes = windows(group, start, end)
        check = _Check(group, settings, window, show, on_progress, notes, ledger)
        check.read_input()
        check.read_outputs()
        check.judge_later_sources()
        check.check_original_rows()
        return check.verdict()


@dataclass
class _Check:
    group: ConsumerGroup
    settings: Settings
    window: Windows
    show: int
    on_progress: OnProgress
    notes: list[str]
    ledger: LedgerCheck | None = None
    tallies: dict[int, Tally] = field(default_factory=dict)
    earliest_ms: int | None = None
    listed: dict[str, list[Finding]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    copies: dict[tuple[int, int, int | None], list[str]] = field(default_factory=dict)
    altered: list[tuple[MessageSource, Message]] = field(default_factory=list)
    later: list[tuple[MessageSource, str]] = field(default_factory=list)
    original_rows: OriginalRows = field(default_factory=OriginalRows)

    def _read(self, topic: str, ranges: Windows) -> Iterator[Message]:
        return read(self.group.cluster, self.group.consumer, topic, ranges, self.on_progress)

    def read_input(self) -> None:
        self.tallies = {partition: Tally() for partition in self.window}
        for message in self._read(self.settings.input_topic, self.window):
            value, key = message.value(), message.key()
            original = form.digest(key, value, form.headers_of(message) or [])
            tally = self.tallies[message.partition() or 0]
            tally.add(message.offset() or 0, key, original, form.payments(value))
            # Zero where a message has no time, so that all of the output is read.
            time_ms = max(0, message.timestamp()[1])
            self.earliest_ms = time_ms if self.earliest_ms is None else min(self.earliest_ms, time_ms)

    def read_outputs(self) -> None:
        if all(start == end for start, end in self.window.values()):
            return
        earlier = {}
        for topic in (self.settings.output_topic, self.settings.dead_letter_topic):
            low, since, until = self._bounds(topic)
            self._read_output(topic, since, until)
            earlier[topic] = low, since
        # Rather than to call a payment missing because somebody's clock was far ahead.
        if any(times == 0 for tally in self.tallies.values() for _, _, times in tally.due()):
            for topic, (low, since) in earlier.items():
                self._read_output(topic, low, since)
                self.notes += [
                    f"{topic}/{partition} begins at offset {first}: if earlier ones expired, what they held is missing"
                    for partition, first in low.items()
                    if first > 0
                ]

    def _bounds(self, topic: str) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Per partition the first offset, the first that can matter, and the end.

        The end is asked for after the committed offsets, and with what is still open: a commit's marker may come a
        moment later than the offset that it commits.
        """
        cluster = self.group.cluster
        partitions = cluster.describe_topic(topic).partitions
        low = cluster.first_offsets(topic, partitions)
        end = cluster.high_watermarks(topic, partitions)
        since = cluster.offsets_at(topic, partitions, (self.earliest_ms or 0) - _CLOCKS_APART_MS)
        return low, {number: end[number] if at is None else min(at, end[number]) for number, at in since.items()}, end

    def _read_output(self, topic: str, since: dict[int, int], until: dict[int, int]) -> None:
        dead = topic == self.settings.dead_letter_topic
        ranges = {partition: (since[partition], until[partition]) for partition in until}
        for message in self._read(topic, ranges):
            self._count(message, dead=dead)

    def _count(self, message: Message, *, dead: bool) -> None:
        headers = form.headers_of(message)
        place = form.place_of(headers, dead=dead)
        is_due = place is not None and self._is_in_window(place, message)
        if self.ledger and not dead:
            self.ledger.look_at(message, headers, place, is_due=is_due)
        if place is None or not is_due:
            return
        if self.ledger and dead:
            self.ledger.look_at_letter(message, place)
        tally = self.tallies[place.partition]
        if dead:
            tally.dead_letters += 1
        else:
            tally.scored += 1
        # A scored payment always says which row it is.
        times = None if place.row is None and not dead else tally.count(place.offset, place.row)
        if times is None:
            tally.nowhere += 1
            self._list("nowhere", place, f"at {_at(message)}, batch {place.batch}")
            return
        if times > 1:
            self._note_copy(place, message)
        if not self._is_right(tally, place, message, dead=dead):
            tally.altered += 1
            if len(self.altered) < self.show:
                self.altered.append((place, message))

    def _is_in_window(self, place: MessageSource, message: Message) -> bool:
        if place.topic != self.settings.input_topic or place.partition not in self.window:
            return False
        start, end = self.window[place.partition]
        if place.offset >= end and len(self.later) < _LATER_KEPT:
            self.later.append((place, _at(message)))
        return start <= place.offset < end

    def judge_later_sources(self) -> None:
        """Sources behind the window are another check's, unless the input topic does not reach so far even now."""
        if not self.later:
            return
        ends = self.group.cluster.high_watermarks(self.settings.input_topic, self.window)
        for place, at in self.later:
            if place.offset >= ends[place.partition]:
                self.tallies[place.partition].nowhere += 1
                self._list("nowhere", place, f"at {at}, batch {place.batch}")

    def _is_right(self, tally: Tally, place: MessageSource, message: Message, *, dead: bool) -> bool:
        if dead:
            return form.has_reason(place) and self._holds_original(tally, place, message)
        payment = form.scored_payment(message.value())
        want = tally.payment(place.offset, place.row or 0)
        return not isinstance(payment, str) and form.digest(message.key(), payment) == want

    def _holds_original(self, tally: Tally, place: MessageSource, message: Message) -> bool:
        """Return whether a dead letter holds its message, or names a row of it whose dead letter has to."""
        if place.original_row is None:
            if form.digest(message.key(), message.value(), place.original) != tally.original(place.offset):
                return False
            self.original_rows.add_original(place)
            return True
        if message.value() or place.original or not tally.has_key(place.offset, message.key()):
            return False
        self.original_rows.add_reference(place, message)
        return True

    def check_original_rows(self) -> None:
        for place, message, count in self.original_rows.unresolved():
            self.tallies[place.partition].altered += count
            if len(self.altered) < self.show:
                self.altered.append((place, message))

    def _list(self, kind: str, place: MessageSource, detail: str) -> None:
        if len(self.listed[kind]) < self.show:
            source = f"{place.topic}/{place.partition}/{place.offset}"
            self.listed[kind].append(Finding(source, place.row, detail))

    def _note_copy(self, place: MessageSource, message: Message) -> None:
        key = place.partition, place.offset, place.row
        if len(self.copies) < _COPIES_KEPT or key in self.copies:
            again = self.copies.setdefault(key, [])
            if len(again) < _COPIES_LISTED:
                again.append(f"{_at(message)} (batch {place.batch})")

    def verdict(self) -> VerifyReport:
        ledger = self._ledger_verdict()
        for place, message in self.altered:
            self._list("altered", place, f"{self._what_differs(place, message)}; at {_at(message)}")
        parts = tuple(self._partition(partition) for partition in sorted(self.window))
        settings = self.settings
        return VerifyReport(
            input_topic=settings.input_topic,
            output_topic=settings.output_topic,
            dead_letter_topic=settings.dead_letter_topic,
            group=settings.group,
            partitions=parts,
            missing=tuple(self.listed["missing"]),
            double=tuple(self.listed["double"]),
            altered=tuple(self.listed["altered"]),
            nowhere=tuple(self.listed["nowhere"]),
            notes=tuple(self.notes),
            ledger=ledger,
        )

    def _ledger_verdict(self) -> LedgerVerdict | None:
        if self.ledger is None:
            return None
        cluster, source = self.group.cluster, self.group.topic
        output = cluster.describe_topic(self.settings.output_topic)
        low = cluster.first_offsets(output.name, output.partitions)
        letters = cluster.describe_topic(self.settings.dead_letter_topic)
        letters_low = cluster.first_offsets(letters.name, letters.partitions)
        all_letters = not any(letters_low.values())
        found = self.ledger.judge(source, self.window, output, low, self.show, all_letters=all_letters)
        self.notes += self.ledger.notes
        # What the output topic has no more did come out: its row says so.
        for partition, offset, row in self.ledger.expired:
            self.tallies[partition].count(offset, row)
        return found

    def _partition(self, partition: int) -> PartitionVerdict:
        tally = self.tallies[partition]
        due = missing = double = 0
        for offset, row, times in tally.due():
            due += 1
            if times == 1:
                continue
            kind = "double" if times else "missing"
            missing += not times
            double += times > 1
            if len(self.listed[kind]) < self.show:
                source = f"{self.settings.input_topic}/{partition}/{offset}"
                self.listed[kind].append(Finding(source, row, self._copies_of(partition, offset, row, times)))
        start, end = self.window[partition]
        return PartitionVerdict(
            partition=partition,
            start=start,
            end=end,
            messages=tally.messages,
            due=due,
            scored=tally.scored,
            dead_letters=tally.dead_letters,
            missing=missing,
            double=double,
            altered=tally.altered,
            nowhere=tally.nowhere,
        )

    def _copies_of(self, partition: int, offset: int, row: int | None, times: int) -> str:
        if times < 2:
            return ""
        keys = {(partition, offset, row), (partition, offset, None)}
        again = ", ".join(place for key in sorted(keys, key=str) for place in self.copies.get(key, []))
        return f"{times} times" + (f", again at {again}" if again else "")

    def _what_differs(self, place: MessageSource, message: Message) -> str:
        """Reads the original again."""
        window = {place.partition: (place.offset, place.offset + 1)}
        for original in self._read(place.topic, window):
            if message.topic() == self.settings.dead_letter_topic:
                return form.why_dead_letter_differs(original, message, place)
            return form.why_scored_differs(original, place.row or 0, message)
        return "its original is gone by now"


def _at(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"
