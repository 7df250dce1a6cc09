"""Where the group stands, as an operator sees and decides it: `fraud offsets`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from include.batch.checkpoint import Checkpoint
from include.batch.outbox import Outbox
from include.errors import HangingTransactionError, OffsetsChangedError, StagingError
from include.kafka.cluster import Cluster, Topic
from include.kafka.committed_offsets import CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.group_admin import OffsetChange, set_offsets
from include.kafka.offset_targets import resolve_targets
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
    settings: Settings
    group: ConsumerGroup

    @property
    def topic(self) -> Topic:
        """Return the input topic."""
        return self.group.topic

    @classmethod
    @contextmanager
    def opened(cls, cluster: Cluster, settings: Settings) -> Iterator[GroupOffsets]:
        topic = cluster.describe_topic(settings.input_topic)
        with ConsumerGroup.open(cluster, settings.group, topic) as group:
            yield cls(settings, group)

    def require_unused(self) -> None:
        self.group.cluster.require_unused_group(self.group.name)

    def standings(self) -> list[PartitionOffsets]:
        cluster, name, numbers = self.group.cluster, self.topic.name, self.topic.partitions
        cluster.describe_group(self.group.name)
        committed = self._committed()
        first = cluster.first_offsets(name, numbers)
        end = cluster.last_stable_offsets(name, numbers)
        found = []
        for number in numbers:
            now = committed[number] or CommittedOffset(None)
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

    def _committed(self) -> Mapping[int, CommittedOffset | None]:
        """None where a kafka transaction is open."""
        try:
            return self.group.committed_offsets()
        except HangingTransactionError:
            return {number: self._committed_of(number) for number in self.topic.partitions}

    def _committed_of(self, partition: int) -> CommittedOffset | None:
        try:
            return self.group.committed_offsets([partition])[partition]
        except HangingTransactionError:
            return None

    def targets(self, to: str, partitions: Iterable[int], rows: list[PartitionOffsets]) -> dict[int, int]:
        """`to` is earliest, latest, an offset or a time; raises SettingError where it cannot be meant."""
        bounds = {row.partition: (row.first, row.end) for row in rows}
        return resolve_targets(self.group.cluster, self.topic.name, to, partitions, bounds)

    def move(
        self, targets: Mapping[int, int], agreed: Mapping[int, PartitionOffsets] | None = None
    ) -> list[OffsetChange]:
        """`agreed`: where the partitions stood when somebody agreed to it; one that has moved since is left alone."""
        storage = Storage.open(self.settings.staging_url)
        outbox, progress = Outbox(storage, self.group.name, self.topic.name), Checkpoint(storage, self.group.name)

        def seen(partition: int, found: CommittedOffset) -> None:
            shown = agreed[partition] if agreed else None
            if shown is not None and not shown.unsettled and shown.committed != found.offset:
                raise OffsetsChangedError(
                    f"it stood at {shown.committed} when you were asked, and stands at {found.offset} now: look again, "
                    "and decide anew"
                )
            # The note that is about to go may be the only trace of a batch whose report is still owed.
            outbox.note_commits(lambda: self.group.committed_offsets([partition]))

        moved = set_offsets(self.group, targets, f"set by operator {user_name()}", datetime.now(UTC), seen)
        for one in moved:
            if one.error is None:
                try:
                    progress.note(self.topic, one.partition, one.target)
                except StagingError as error:
                    log.warning("partition %s is set, but that cannot be noted: %s", one.partition, error)
        return moved
