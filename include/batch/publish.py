"""Step 4: one kafka transaction per partition: predictions and dead letters out and the offset on, or nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from confluent_kafka import Producer

from include.batch import chunks
from include.batch.checkpoint import Checkpoint
from include.batch.claims import is_claimed
from include.batch.manifest import Manifest, PartitionBatch, is_batch_id
from include.batch.messages import OutgoingMessages
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
    PUBLISHED = "published"
    ALREADY_PUBLISHED = "already published"
    PUBLISHED_BY_ANOTHER = "published by another batch"


@dataclass(frozen=True)
class Published:
    """Outcome by partition, how many messages this attempt sent, and the newest payment's Kafka timestamp."""

    outcomes: dict[int, Outcome]
    predictions: int
    dead_letters: int
    newest: int | None = None


def publish(
    cluster: Cluster,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    reached: Callable[[str], None] = lambda point: None,
    shard: int = 0,
) -> Published:
    """Safe to repeat at any time. `reached` hears each point of the protocol as it is passed."""
    began = time.monotonic()
    topic = cluster.describe_topic(manifest.topic)
    if topic.topic_id != manifest.topic_id:
        raise TopicChangedError(
            f"{manifest.topic} was deleted and made again (id {manifest.topic_id}, now {topic.topic_id}) after this "
            "batch was drained; the next run's plan asks where to begin"
        )
    scored = ScoredBatch.load_fixed(storage, manifest.folder, shard)
    outbox = Outbox(storage, manifest.group, manifest.topic)
    outbox.open_entry(manifest)
    reached("before fence")
    due = {scores.part.partition: scores for scores in scored.due}
    progress = Checkpoint(storage, manifest.group)
    outcomes: dict[int, Outcome] = {}
    errors: list[FraudError] = []
    with ConsumerGroup.open(cluster, manifest.group, topic) as group:
        for producers in group.fence(due):
            # Read after the fence: no older attempt can add to it any more.
            done = outbox.committed(manifest)
            may_publish = is_claimed(storage, manifest)
            publishing = _Publishing(group, manifest, outbox, progress, done, may_publish, began, reached)
            for partition in producers:
                part = due[partition].part
                try:
                    messages = OutgoingMessages(settings, storage, manifest, scored, due[partition])
                    outcome = publishing.publish(part, messages, producers[partition])
                except FraudError as error:
                    # The others go on: what is wrong with one partition must not hold them up, now or in any later run.
                    log.error("%s/%s [%s, %s): %s", manifest.topic, partition, part.start, part.end, error)
                    errors.append(error)
                    continue
                outcomes[partition] = outcome
                log.info("%s/%s [%s, %s): %s", manifest.topic, partition, part.start, part.end, outcome.value)
    is_superseded = bool(errors) and all(isinstance(error, BatchSupersededError) for error in errors)
    if is_superseded and not outcomes and len(manifest.shards) < 2 and not outbox.committed(manifest):
        # This entry was opened after the newer run had listed the outbox, so no other run closes it. With shards,
        # another one, which is not fenced here, may have committed and not recorded it yet: the next run's plan
        # closes such an entry.
        outbox.close_entry(manifest.batch_id)
    _raise_together(errors)
    sent = [scores for scores in scored.due if outcomes.get(scores.part.partition) is Outcome.PUBLISHED]
    return Published(
        outcomes,
        sum(scores.scored for scores in sent),
        sum(scores.dead_letters for scores in sent),
        max((scores.part.newest for scores in scored.due if scores.part.newest is not None), default=None),
    )


def _raise_together(errors: list[FraudError]) -> None:
    """As one error that says all; permanent only if each is, for a retry may mend the others."""
    if not errors:
        return
    leading = next((error for error in errors if not error.permanent), errors[0])
    if len(errors) == 1:
        raise leading
    raise type(leading)("; ".join(str(error) for error in errors)) from leading


@dataclass(frozen=True)
class _Publishing:
    """`done` are the partitions that this batch is known to have committed, `may_publish` is false where a newer run
    has ended its claim, both read after the fence; `began` is of time.monotonic()."""

    group: ConsumerGroup
    manifest: Manifest
    outbox: Outbox
    progress: Checkpoint
    done: set[int]
    may_publish: bool
    began: float
    reached: Callable[[str], None]

    def publish(self, part: PartitionBatch, messages: Iterable[OutgoingMessage], producer: Producer) -> Outcome:
        """`producer` has shut out every older attempt: none can move the offset any more."""
        now = self._committed(part)
        outcome = self._outcome_so_far(part, now)
        if outcome is None:
            self._publish(part, messages, producer, now)
            return Outcome.PUBLISHED
        self._note(part, outcome)
        return outcome

    def _committed(self, part: PartitionBatch) -> CommittedOffset:
        return self.group.committed_offsets([part.partition])[part.partition]

    def _note(self, part: PartitionBatch, outcome: Outcome) -> None:
        if outcome is Outcome.PUBLISHED:
            self.outbox.note_commit(self.manifest, part.partition, round(time.monotonic() - self.began, 3))
        elif outcome is Outcome.ALREADY_PUBLISHED and part.partition not in self.done:
            self.outbox.note_commit(self.manifest, part.partition)
        self.progress.advance(self.group.topic, part.partition, part.end)

    def _publish(
        self, part: PartitionBatch, messages: Iterable[OutgoingMessage], producer: Producer, now: CommittedOffset
    ) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        note = CommitNote(batch=self.manifest.batch_id, topic_id=self.manifest.topic_id, at=at)
        self.reached("before transaction")
        with chunks.paused_collector():
            Transaction(producer, self.group, part.partition).run(
                messages, part.end, note, self.reached, lambda: self._require_untouched(part)
            )
        # At once: another program that commits now overwrites the note, and nobody would know of the report.
        self._note(part, Outcome.PUBLISHED)
        seen = self.group.await_commit(part.partition, part.end, note, now)
        if seen.note != note:
            topic = self.manifest.topic
            log.warning("%s/%s: %s has committed %s over it", topic, part.partition, _who(seen), seen.offset)

    def _outcome_so_far(self, part: PartitionBatch, now: CommittedOffset) -> Outcome | None:
        """None where this batch is to be published now."""
        batch_id = self.manifest.batch_id
        if now.batch == batch_id or part.partition in self.done:
            return Outcome.ALREADY_PUBLISHED
        if part.is_untouched(now):
            if self.may_publish:
                return None
            raise BatchSupersededError(
                f"batch {batch_id} of {self.manifest.topic}/{part.partition}, offsets [{part.start}, {part.end}), is "
                "not published: newer runs have taken over its payments and removed its staged files. Nothing needs to "
                "be done: the next run drains them"
            )
        # Whoever else commits this offset, an operator or a foreign consumer, has published nothing.
        if now.offset == part.end and is_batch_id(now.batch or ""):
            return Outcome.PUBLISHED_BY_ANOTHER
        by = "" if now.offset is None else f", and {_who(now)} committed the offset"
        raise OffsetsChangedError(
            f"group {self.manifest.group} stands at {now.offset} on {self.manifest.topic}/{part.partition}, but batch "
            f"{batch_id} of offsets [{part.start}, {part.end}) was drained from {part.committed_before}{by}: no commit "
            "of this batch is known. The next run drains from where the group stands"
        )

    def _require_untouched(self, part: PartitionBatch) -> None:
        """Kafka fences producers, but no plain commit: this offset would overwrite what was set meanwhile, unseen."""
        try:
            now = self._committed(part)
        except ClusterError:
            # Not readable now, and no reason to give up: if the broker is away, adding the offset waits for it.
            return
        self._outcome_so_far(part, now)


def _who(committed: CommittedOffset) -> str:
    """By the note beside the offset; one that was only kept alive has an empty name."""
    if not committed.batch:
        return "another program"
    return f"batch {committed.batch}" if is_batch_id(committed.batch) else repr(committed.batch)
