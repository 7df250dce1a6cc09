"""Proves from the topics alone that each payment of a window came out exactly once, as it came in.

1. It reads the window of the input topic, and keeps digests of what each message must become.
2. It reads the output topic and the dead letters, from the earliest time in the window to their end, and counts each
   message whose source is in the window.
3. It lists payments that came out never or more than once, and how the first altered ones differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Message

from include.kafka.cluster import Cluster
from include.kafka.consumer_group import ConsumerGroup
from include.settings import Settings
from include.verify import expected_message as expected
from include.verify.content_check import ContentCheck
from include.verify.expected_message import MessageSource
from include.verify.finding_list import FindingList, position
from include.verify.findings import LedgerReport, PartitionCounts, VerifyReport
from include.verify.ledger_comparison import LedgerComparison
from include.verify.tally import Tally
from include.verify.window import Bounds, choose_window, find_output_range
from include.verify.window_reader import OnProgress, Windows, read_window

_MAX_LATER_SOURCES = 100_000


def verify(
    cluster: Cluster,
    settings: Settings,
    *,
    start: Bounds = Bounds(),  # noqa: B008
    end: Bounds = Bounds(),  # noqa: B008
    show: int = 20,
    on_progress: OnProgress = lambda text, share: None,
    ledger: LedgerComparison | None = None,
) -> VerifyReport:
    """Verify the window `[start, end)`, by default from the first retained offset to the group's committed one.

    The report lists at most `show` findings of each kind. With `ledger`, the ledger is compared with the output topic
    too. Raise ClusterError or SettingError if the window cannot be verified.
    """
    topic = cluster.describe_topic(settings.input_topic)
    with ConsumerGroup.open(cluster, settings.group, topic) as group:
        window, notes = choose_window(group, start, end)
        verification = _Verification(group, settings, window, show, on_progress, notes, ledger)
        verification.read_input()
        verification.read_outputs()
        verification.check_later_sources()
        verification.check_original_rows()
        return verification.report()


@dataclass
class _Verification:
    """The tallies of one window, one per input partition, and the findings."""

    group: ConsumerGroup
    settings: Settings
    window: Windows
    show: int
    on_progress: OnProgress
    notes: list[str]
    ledger: LedgerComparison | None

    def __post_init__(self) -> None:
        self.tallies = {partition: Tally() for partition in self.window}
        self.earliest_ms: int | None = None
        self.findings = FindingList(self.show)
        self.content = ContentCheck()
        self.later_sources: list[tuple[MessageSource, str]] = []

    def _read(self, topic: str, ranges: Windows) -> Iterator[Message]:
        return read_window(self.group.cluster, self.group.consumer, topic, ranges, self.on_progress)

    def read_input(self) -> None:
        """Read the window and tally what each of its messages must become."""
        for message in self._read(self.settings.input_topic, self.window):
            value, key = message.value(), message.key()
            original = expected.digest(key, value, expected.read_headers(message) or [])
            tally = self.tallies[message.partition() or 0]
            tally.add(message.offset() or 0, key, original, expected.expected_payments(value))
            # 0 for a message without timestamp, so that the outputs are read completely.
            time_ms = max(0, message.timestamp()[1])
            self.earliest_ms = time_ms if self.earliest_ms is None else min(self.earliest_ms, time_ms)

    def read_outputs(self) -> None:
        """Read the output topic and the dead letters, and completely if a payment seems to be missing."""
        if all(start == end for start, end in self.window.values()):
            return
        unread = {}
        for topic in (self.settings.output_topic, self.settings.dead_letter_topic):
            low, start, end = find_output_range(self.group.cluster, topic, self.earliest_ms or 0)
            self._read_output(topic, start, end)
            unread[topic] = low, start
        # A producer's clock may have been ahead by more than the maximum: then its payments came out before `start`.
        if any(times == 0 for tally in self.tallies.values() for _, _, times in tally.due_rows()):
            for topic, (low, start) in unread.items():
                self._read_output(topic, low, start)
                self.notes += [
                    f"{topic}/{partition} begins at offset {first}: payments in messages that expired count as missing"
                    for partition, first in low.items()
                    if first > 0
                ]

    def _read_output(self, topic: str, start: dict[int, int], end: dict[int, int]) -> None:
        is_dead_letter = topic == self.settings.dead_letter_topic
        ranges = {partition: (start[partition], end[partition]) for partition in end}
        for message in self._read(topic, ranges):
            self._count(message, is_dead_letter=is_dead_letter)

    def _count(self, message: Message, *, is_dead_letter: bool) -> None:
        headers = expected.read_headers(message)
        source = expected.parse_source(headers, is_dead_letter=is_dead_letter)
        is_due = source is not None and self._is_in_window(source, message)
        if self.ledger and not is_dead_letter:
            self.ledger.add_output(message, headers, source, is_due=is_due)
        if source is None or not is_due:
            return
        if self.ledger and is_dead_letter:
            self.ledger.add_dead_letter(message, source)
        tally = self.tallies[source.partition]
        if is_dead_letter:
            tally.dead_letters += 1
        else:
            tally.scored += 1
        # A scored payment always names its row.
        has_row = is_dead_letter or source.row is not None
        times = tally.count(source.offset, source.row) if has_row else None
        if times is None:
            self._add_unknown_source(source, position(message))
            return
        if times > 1:
            self.findings.add_copy(source, message)
        check = self.content.is_dead_letter_as_expected if is_dead_letter else self.content.is_scored_as_expected
        if not check(tally, source, message):
            tally.altered += 1
            self.findings.add_altered(source, message)

    def _is_in_window(self, source: MessageSource, message: Message) -> bool:
        if source.topic != self.settings.input_topic or source.partition not in self.window:
            return False
        start, end = self.window[source.partition]
        if source.offset >= end and len(self.later_sources) < _MAX_LATER_SOURCES:
            self.later_sources.append((source, position(message)))
        return start <= source.offset < end

    def check_later_sources(self) -> None:
        """Report sources after the window that the input topic does not have even now; others are not verified here."""
        if not self.later_sources:
            return
        ends = self.group.cluster.high_watermarks(self.settings.input_topic, self.window)
        for source, at in self.later_sources:
            if source.offset >= ends[source.partition]:
                self._add_unknown_source(source, at)

    def _add_unknown_source(self, source: MessageSource, at: str) -> None:
        self.tallies[source.partition].nowhere += 1
        self.findings.add("nowhere", source.position, source.row, f"at {at}, batch {source.batch}")

    def check_original_rows(self) -> None:
        """Report dead letters that name a row whose dead letter does not hold the message."""
        for source, message, count in self.content.unresolved_references():
            self.tallies[source.partition].altered += count
            self.findings.add_altered(source, message)

    def report(self) -> VerifyReport:
        """Compare the ledger if there is one, and return all counts and the findings to list."""
        ledger = self._compare_ledger()
        for source, message in self.findings.altered:
            difference = self._describe_difference(source, message)
            self.findings.add("altered", source.position, source.row, f"{difference}; at {position(message)}")
        partitions = tuple(self._count_partition(partition) for partition in sorted(self.window))
        settings = self.settings
        return VerifyReport(
            input_topic=settings.input_topic,
            output_topic=settings.output_topic,
            dead_letter_topic=settings.dead_letter_topic,
            group=settings.group,
            partitions=partitions,
            missing=self.findings.of_kind("missing"),
            double=self.findings.of_kind("double"),
            altered=self.findings.of_kind("altered"),
            nowhere=self.findings.of_kind("nowhere"),
            notes=tuple(self.notes),
            ledger=ledger,
        )

    def _compare_ledger(self) -> LedgerReport | None:
        if self.ledger is None:
            return None
        cluster = self.group.cluster
        output = cluster.describe_topic(self.settings.output_topic)
        output_low = cluster.first_offsets(output.name, output.partitions)
        dead_letters = cluster.describe_topic(self.settings.dead_letter_topic)
        has_all_letters = not any(cluster.first_offsets(dead_letters.name, dead_letters.partitions).values())
        report = self.ledger.compare(
            self.group.topic, self.window, output, output_low, self.show, has_all_letters=has_all_letters
        )
        self.notes += self.ledger.notes
        # A payment whose message expired on the output topic did come out: its row in the ledger says so.
        for partition, offset, row in self.ledger.expired:
            self.tallies[partition].count(offset, row)
        return report

    def _count_partition(self, partition: int) -> PartitionCounts:
        tally, topic = self.tallies[partition], self.settings.input_topic
        due = missing = double = 0
        for offset, row, times in tally.due_rows():
            due += 1
            if times == 0:
                missing += 1
                self.findings.add("missing", f"{topic}/{partition}/{offset}", row)
            elif times > 1:
                double += 1
                copies = self.findings.describe_copies(partition, offset, row, times)
                self.findings.add("double", f"{topic}/{partition}/{offset}", row, copies)
        start, end = self.window[partition]
        return PartitionCounts(
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

    def _describe_difference(self, source: MessageSource, message: Message) -> str:
        """Read the original message again and return how the message differs from it."""
        window = {source.partition: (source.offset, source.offset + 1)}
        for original in self._read(source.topic, window):
            if message.topic() == self.settings.dead_letter_topic:
                return expected.describe_dead_letter_difference(original, message, source)
            return expected.describe_scored_difference(original, source.row or 0, message)
        return "the original message has expired"
