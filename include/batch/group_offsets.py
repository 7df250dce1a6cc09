"""Show and set the group's committed offsets on the input topic, for the commands `fraud offsets`."""

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
from include.kafka.committed_offsets import SET_BY_OPERATOR, CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.group_admin import OffsetChange, set_offsets
from include.kafka.offset_targets import resolve_targets
from include.settings import Settings
from include.storage.staging import Storage
from include.user import user_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionOffsets:
    """A partition's offsets. Field names are keys of the commands' JSON.

    `first` is the first offset that the partition retains, `end` its last stable offset. `committed` is None if the
    group has no committed offset, or if a kafka transaction is open on it, which makes `unsettled` true. `batch`,
    `committed_at` and `topic_id` are those of the commit note.
    """

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
        """Return how many offsets wait to be read."""
        return max(0, self.end - max(self.first, self.committed or 0))

    def is_at(self, offset: int, topic: Topic) -> bool:
        """Return whether this DAG or `fraud offsets` has committed just this offset of the topic."""
        return not self.unsettled and self.committed == offset and self.topic_id == topic.topic_id


@dataclass(frozen=True)
class GroupOffsets:
    """The group's offsets on the input topic."""

    settings: Settings
    group: ConsumerGroup

    @property
    def topic(self) -> Topic:
        """Return the input topic."""
        return self.group.topic

    @classmethod
    @contextmanager
    def open(cls, cluster: Cluster, settings: Settings) -> Iterator[GroupOffsets]:
        """Yield the offsets of the settings' group. Raise ClusterError if the topic cannot be described."""
        topic = cluster.describe_topic(settings.input_topic)
        with ConsumerGroup.open(cluster, settings.group, topic) as group:
            yield cls(settings, group)

    def require_unused(self) -> None:
        """Raise GroupInUseError if the group has members."""
        self.group.cluster.require_unused_group(self.group.name)

    def read(self) -> list[PartitionOffsets]:
        """Return the offsets of each partition. Raise ClusterError if they cannot be read."""
        cluster, name, numbers = self.group.cluster, self.topic.name, self.topic.partitions
        # Without the right to read the group, this raises an error with the cause; the next request would time out.
        cluster.describe_group(self.group.name)
        committed = self._committed_offsets()
        first = cluster.first_offsets(name, numbers)
        end = cluster.last_stable_offsets(name, numbers)
        offsets = []
        for number in numbers:
            current = committed[number] or CommittedOffset(None)
            note = current.note
            offsets.append(
                PartitionOffsets(
                    partition=number,
                    first=first[number],
                    committed=current.offset,
                    end=end[number],
                    batch=note.batch if note else None,
                    committed_at=note.at if note else None,
                    unsettled=committed[number] is None,
                    topic_id=note.topic_id if note else None,
                )
            )
        return offsets

    def _committed_offsets(self) -> Mapping[int, CommittedOffset | None]:
        """Return the committed offset of each partition, None if a kafka transaction is open on it."""
        try:
            return self.group.committed_offsets()
        except HangingTransactionError:
            return {number: self._committed_offset(number) for number in self.topic.partitions}

    def _committed_offset(self, partition: int) -> CommittedOffset | None:
        try:
            return self.group.committed_offsets([partition])[partition]
        except HangingTransactionError:
            return None

    def resolve_targets(self, to: str, partitions: Iterable[int], rows: list[PartitionOffsets]) -> dict[int, int]:
        """Return the offset that `to` means on each partition: earliest, latest, an offset or a time.

        Without `partitions`, return it for all of them. Raise SettingError if `to` is none of these, or out of range.
        """
        bounds = {row.partition: (row.first, row.end) for row in rows}
        return resolve_targets(self.group.cluster, self.topic.name, to, partitions, bounds)

    def commit(
        self, targets: Mapping[int, int], shown: Mapping[int, PartitionOffsets] | None = None
    ) -> list[OffsetChange]:
        """Commit the target offset of each partition, and return the outcomes.

        `shown` are the offsets that a person has confirmed: a partition whose offset has changed since is left alone.
        """
        storage = Storage.open(self.settings.staging_url)
        outbox, checkpoint = Outbox(storage, self.group.name, self.topic.name), Checkpoint(storage, self.group.name)

        def check(partition: int, current: CommittedOffset) -> None:
            before = shown[partition] if shown else None
            if before is not None and not before.unsettled and before.committed != current.offset:
                raise OffsetsChangedError(
                    f"the committed offset was {before.committed} when you confirmed, and is {current.offset} now: run "
                    "the command again"
                )
            # The new note replaces one that may be the only trace of a batch with a pending report.
            outbox.record_commits(lambda: self.group.committed_offsets([partition]))

        changes = set_offsets(self.group, targets, f"{SET_BY_OPERATOR}{user_name()}", datetime.now(UTC), check)
        for change in changes:
            if change.error is None:
                try:
                    checkpoint.write(self.topic, change.partition, change.target)
                except StagingError as error:
                    log.warning(
                        "partition %s is set, but its checkpoint cannot be written: %s", change.partition, error
                    )
        return changes
