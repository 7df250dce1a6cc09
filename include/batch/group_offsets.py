"""Where the group stands, as an operator sees and decides it: `fraud offsets`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer

from include.batch.checkpoint import Checkpoint
from include.batch.outbox import Outbox
from include.errors import HangingTransactionError, OffsetsChangedError, StagingError
from include.kafka import committed_offsets
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, consumer_settings
from include.kafka.committed_offsets import Committed, Topic, read_committed_offsets
from include.kafka.group_admin import OffsetMove, move
from include.kafka.topic_offsets import first_offsets, last_stable_offsets, offsets_meant
from include.settings import Settings
from include.storage.staging import Storage
from include.user import user_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionOffsets:
    """`end` is the last stable offset; `committed` is None where the group has none, or a kafka transaction is open."""

    partition: int
    first: int
    committed: int | None
    end: int
    batch: str | None
    committed_at: str | None
    unsettled: bool = False
    topic_id: str | None = None

    @property
    def waiting(self) -> int:
        return max(0, self.end - max(self.first, self.committed or 0))

    def stands_at(self, offset: int, topic: Topic) -> bool:
        return not self.unsettled and self.committed == offset and self.topic_id == topic.topic_id


@dataclass(frozen=True)
class GroupOffsets:
    kafka: ClientConfig
    settings: Settings
    admin: Admin
    consumer: Consumer
    topic: Topic

    @classmethod
    @contextmanager
    def opened(cls, kafka: ClientConfig, settings: Settings) -> Iterator[GroupOffsets]:
        admin = Admin(kafka)
        topic = committed_offsets.describe_topic(admin, kafka, settings.input_topic)
        consumer = Consumer(consumer_settings(kafka, settings.group))
        try:
            yield cls(kafka, settings, admin, consumer, topic)
        finally:
            consumer.close()

    def require_unused(self) -> None:
        committed_offsets.require_unused_group(self.admin, self.kafka, self.settings.group)

    def standings(self) -> list[PartitionOffsets]:
        name, numbers = self.topic.name, self.topic.partitions
        committed_offsets.describe_group(self.admin, self.kafka, self.settings.group)
        committed = self._committed()
        first = first_offsets(self.admin, self.kafka, name, numbers)
        end = last_stable_offsets(self.admin, self.kafka, name, numbers)
        found = []
        for number in numbers:
            now = committed[number] or Committed(None)
            found.append(
                PartitionOffsets(
                    partition=number,
                    first=first[number],
                    committed=now.offset,
                    end=end[number],
                    batch=now.note.batch if now.note else None,
                    committed_at=now.note.at if now.note else None,
                    unsettled=committed[number] is None,
                    topic_id=now.note.topic_id if now.note else None,
                )
            )
        return found

    def _committed(self) -> Mapping[int, Committed | None]:
        """None where a kafka transaction is open."""
        try:
            return read_committed_offsets(self.consumer, self.kafka, self.topic.name, self.topic.partitions)
        except HangingTransactionError:
            return {number: self._committed_of(number) for number in self.topic.partitions}

    def _committed_of(self, partition: int) -> Committed | None:
        try:
            return read_committed_offsets(self.consumer, self.kafka, self.topic.name, [partition])[partition]
        except HangingTransactionError:
            return None

    def targets(self, to: str, partitions: Iterable[int], rows: list[PartitionOffsets]) -> dict[int, int]:
        """`to` is earliest, latest, an offset or a time; raises SettingError where it cannot be meant."""
        bounds = {row.partition: (row.first, row.end) for row in rows}
        return offsets_meant(self.admin, self.kafka, self.topic.name, to, partitions, bounds)

    def move(
        self, targets: Mapping[int, int], agreed: Mapping[int, PartitionOffsets] | None = None
    ) -> list[OffsetMove]:
        """`agreed`: where the partitions stood when somebody agreed to it; one that has moved since is left alone."""
        group = self.settings.group
        storage = Storage.open(self.settings.staging_url)
        outbox, progress = Outbox(storage, group, self.topic.name), Checkpoint(storage, group)

        def seen(partition: int, found: Committed) -> None:
            shown = agreed[partition] if agreed else None
            if shown is not None and not shown.unsettled and shown.committed != found.offset:
                raise OffsetsChangedError(
                    f"it stood at {shown.committed} when you were asked, and stands at {found.offset} now: look again, "
                    "and decide anew"
                )
            # The note that is about to go may be the only trace of a batch whose report is still owed.
            outbox.note_commits(lambda: read_committed_offsets(self.consumer, self.kafka, self.topic.name, [partition]))

        moved = move(self.kafka, group, self.topic, targets, f"set by operator {user_name()}", datetime.now(UTC), seen)
        for one in moved:
            if one.error is None:
                try:
                    progress.note(self.topic, one.partition, one.to)
                except StagingError as error:
                    log.warning("partition %s is set, but that cannot be noted: %s", one.partition, error)
        return moved
