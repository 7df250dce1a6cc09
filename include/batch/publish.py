"""Step `publish`: commit predictions, dead letters and the offset of each partition in one kafka transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from confluent_kafka import Producer

from include.batch import chunks
from include.batch.batch_id import is_batch_id
from include.batch.checkpoint import Checkpoint
from include.batch.claims import is_claimed
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.messages import OutgoingMessages
from include.batch.offset_change import describe_change, describe_committer
from include.batch.outbox import Outbox
from include.batch.scored_batch import ScoredBatch
from include.errors import (
    BatchSupersededError,
    ClusterError,
    FraudError,
    OffsetsChangedError,
    TopicChangedError,
)
from include.kafka.cluster import Cluster
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.transaction import OutgoingMessage, Transaction
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)


class Outcome(Enum):
    """What became of a partition."""

    PUBLISHED = "published"
    ALREADY_PUBLISHED = "already published"
    PUBLISHED_BY_ANOTHER = "published by another batch"


@dataclass(frozen=True)
class Published:
    """What an attempt to publish a shard did: the outcome of each partition, and how many messages it sent.

    `newest` is the highest `PartitionBatch.newest` of the shard, in milliseconds; None if none is known.
    """

    outcomes: dict[int, Outcome]
    predictions: int
    dead_letters: int
    newest: int | None = None


def publish(
    cluster: Cluster,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    on_step: Callable[[str], None] = lambda step: None,
    shard: int = 0,
) -> Published:
    """Publish one shard. It may be repeated at any time: what is published already is not published again.

    A partition that fails does not stop the others; afterwards one error is raised for all that failed:
    BatchSupersededError if a newer run has taken over the payments, OffsetsChangedError if the group's offset changed,
    StagingError, or ClusterError. Raise TopicChangedError if the input topic was recreated.

    `on_step` gets the names of the points that are passed: "before fence", then for each partition "before transaction"
    and the steps of Transaction.run. Tests stop publishers there.
    """
    began = time.monotonic()
    topic = cluster.describe_topic(manifest.topic)
    if topic.topic_id != manifest.topic_id:
        raise TopicChangedError(
            f"{manifest.topic} was deleted and recreated (id {manifest.topic_id}, now {topic.topic_id}) after this "
            "batch was planned: nothing is published. The next run's plan says how to choose where it starts"
        )
    scored = ScoredBatch.begin_publishing(storage, manifest.folder, shard)
    outbox = Outbox(storage, manifest.group, manifest.topic)
    outbox.open_entry(manifest)
    on_step("before fence")
    to_publish = {one.part.partition: one for one in scored.to_publish}
    checkpoint = Checkpoint(storage, manifest.group)
    outcomes: dict[int, Outcome] = {}
    errors: list[FraudError] = []
    with ConsumerGroup.open(cluster, manifest.group, topic) as group:
        for producers in group.fence(to_publish):
            # Read after the fencing, when no older attempt can commit any more.
            done = outbox.committed_partitions(manifest)
            may_publish = is_claimed(storage, manifest)
            publisher = _PartitionPublisher(group, manifest, outbox, checkpoint, done, may_publish, began, on_step)
            for partition in producers:
                part = to_publish[partition].part
                try:
                    messages = OutgoingMessages(settings, storage, manifest, scored, to_publish[partition])
                    outcome = publisher.publish(part, messages, producers[partition])
                except FraudError as error:
                    # A partition that fails with every run must not stop the others.
                    log.error("%s/%s [%s, %s): %s", manifest.topic, partition, part.start, part.end, error)
                    errors.append(error)
                    continue
                outcomes[partition] = outcome
                log.info("%s/%s [%s, %s): %s", manifest.topic, partition, part.start, part.end, outcome.value)
    is_superseded = bool(errors) and all(isinstance(error, BatchSupersededError) for error in errors)
    if is_superseded and not outcomes and len(manifest.shards) < 2 and not outbox.committed_partitions(manifest):
        # The newer run may have removed the batch's files: an open entry would look like an unreadable report until
        # the next run's plan closes it. If there are several shards, only plan may close it: another shard, whose
        # producers are not fenced here, may have committed without a commit mark yet.
        outbox.close_entry(manifest.batch_id)
    _raise_together(errors)
    sent = [one for one in scored.to_publish if outcomes.get(one.part.partition) is Outcome.PUBLISHED]
    return Published(
        outcomes,
        sum(one.scored for one in sent),
        sum(one.dead_letters for one in sent),
        max((one.part.newest for one in scored.to_publish if one.part.newest is not None), default=None),
    )


def _raise_together(errors: list[FraudError]) -> None:
    """Raise one error with all texts, if there are any; it is permanent only if all are, for a retry may help some."""
    if not errors:
        return
    leading = next((error for error in errors if not error.permanent), errors[0])
    if len(errors) == 1:
        raise leading
    raise type(leading)("; ".join(str(error) for error in errors)) from leading


@dataclass(frozen=True)
class _PartitionPublisher:
    """Publish partitions of a batch whose older producers are fenced.

    `done` are the partitions with a commit mark; `may_publish` is false if a newer run has ended the claim.
    `began` is the start of the step, by time.monotonic().
    """

    group: ConsumerGroup
    manifest: Manifest
    outbox: Outbox
    checkpoint: Checkpoint
    done: set[int]
    may_publish: bool
    began: float
    on_step: Callable[[str], None]

    def publish(self, part: PartitionBatch, messages: Iterable[OutgoingMessage], producer: Producer) -> Outcome:
        """Publish a partition unless it is published already. `producer` has fenced every older attempt."""
        committed = self._committed_offset(part)
        outcome = self._find_outcome(part, committed)
        if outcome is None:
            self._commit(part, messages, producer, committed)
            return Outcome.PUBLISHED
        self._record(part, outcome)
        return outcome

    def _committed_offset(self, part: PartitionBatch) -> CommittedOffset:
        return self.group.committed_offsets([part.partition])[part.partition]

    def _record(self, part: PartitionBatch, outcome: Outcome) -> None:
        if outcome is Outcome.PUBLISHED:
            self.outbox.record_commit(self.manifest, part.partition, round(time.monotonic() - self.began, 3))
        elif outcome is Outcome.ALREADY_PUBLISHED and part.partition not in self.done:
            self.outbox.record_commit(self.manifest, part.partition)
        self.checkpoint.advance(self.group.topic, part.partition, part.end)

    def _commit(
        self, part: PartitionBatch, messages: Iterable[OutgoingMessage], producer: Producer, before: CommittedOffset
    ) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        note = CommitNote(batch=self.manifest.batch_id, topic_id=self.manifest.topic_id, at=at)
        self.on_step("before transaction")
        with chunks.paused_collector():
            Transaction(producer, self.group, part.partition).run(
                messages, part.end, note, self.on_step, lambda: self._require_unchanged(part)
            )
        # At once, because another program's commit would overwrite the note, and then no one would know of the report.
        self._record(part, Outcome.PUBLISHED)
        after = self.group.await_commit(part.partition, part.end, note, before)
        if after.note != note:
            log.warning(
                "%s/%s: %s has committed offset %s after this batch committed %s",
                *(self.manifest.topic, part.partition, describe_committer(after), after.offset, part.end),
            )

    def _find_outcome(self, part: PartitionBatch, committed: CommittedOffset) -> Outcome | None:
        """Return what became of the partition, None if it is to be published now.

        Raise BatchSupersededError or OffsetsChangedError if it must not be published.
        """
        batch_id = self.manifest.batch_id
        if committed.batch == batch_id or part.partition in self.done:
            return Outcome.ALREADY_PUBLISHED
        if part.is_unchanged(committed):
            if self.may_publish:
                return None
            raise BatchSupersededError(
                f"batch {batch_id} of {self.manifest.topic}/{part.partition}, offsets [{part.start}, {part.end}), is "
                "not published: newer runs have taken over its payments, and may have removed its staged files. "
                "Nothing needs to be done: the next run drains the payments"
            )
        # An operator or another program that commits the same offset has published nothing.
        if committed.offset == part.end and is_batch_id(committed.batch or ""):
            return Outcome.PUBLISHED_BY_ANOTHER
        raise OffsetsChangedError(describe_change(self.manifest, part, committed))

    def _require_unchanged(self, part: PartitionBatch) -> None:
        """Raise OffsetsChangedError if the offset, or who committed it, has changed: fencing does not stop a consumer.

        Raise nothing if this batch has committed the partition, or another batch has committed `part.end`: the producer
        of that commit has fenced this one, so the broker rejects the transaction.
        """
        try:
            committed = self._committed_offset(part)
        except ClusterError:
            # No reason to give up: the transaction's next step, which adds the offset, waits for the broker.
            return
        self._find_outcome(part, committed)
