"""Step `plan`: fix the offset range of each partition that a run scores. It reads no payments and commits no batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from shlex import quote

from include.batch.batch_alarms import AlarmState, find_alarms, find_backlog_alarm
from include.batch.batch_id import is_batch_id, new_batch_id
from include.batch.checkpoint import Checkpoint, PartitionCheckpoint
from include.batch.claims import Claims
from include.batch.manifest import BlockedPartition, Manifest, PartitionBatch
from include.batch.outbox import Outbox
from include.batch.partition_lag import PartitionLag
from include.errors import TopicChangedError
from include.kafka.cluster import Cluster, Topic
from include.kafka.committed_offsets import CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.group_admin import fence_producers, recover_offsets, refresh_offsets
from include.kafka.retention import read_oldest_times, read_retention
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)

# Well below offsets.retention.minutes, after which the broker expires a committed offset: seven days by default.
_REFRESH_AGE = timedelta(days=1)


def plan(cluster: Cluster, settings: Settings, storage: Storage, *, run_id: str, run_url: str) -> Manifest:
    """Return a new batch with the offset ranges that wait now, distributed over at most FRAUD_SHARDS shards.

    If nothing waits, it has no partitions and is not saved. Otherwise its manifest and its claim are saved. In either
    case, first end the claims of older batches except the newest, record commits, and remove staged files (`claims`).

    Raise GroupInUseError if the group has members, TopicChangedError if the committed offsets do not fit the topic,
    ClusterError, or StagingError.
    """
    now, began = datetime.now(UTC), time.monotonic()
    cluster.require_unused_group(settings.group)
    topic = cluster.describe_topic(settings.input_topic)
    with ConsumerGroup.open(cluster, settings.group, topic) as group:
        outbox = Outbox(storage, settings.group, topic.name)
        claims = Claims(storage, settings.group, topic.name, run_url, settings.installation)
        ended = claims.end_older(outbox, lambda partitions: fence_producers(group, partitions))
        # Before this batch commits: its note may replace one that is the only trace of an earlier batch's commit.
        committed = outbox.record_commits(lambda: recover_offsets(group), ended)
        # Free space before anything is staged: otherwise a full disk stays full.
        claims.remove(ended, outbox, committed)
        checkpoint = Checkpoint(storage, settings.group)
        parts, left, blocked = _plan_partitions(cluster, settings, topic, committed, checkpoint)
        idle = set(topic.partitions) - {part.partition for part in parts}
        unchanged = {partition: committed[partition] for partition in idle}
        for partition, offset in refresh_offsets(group, unchanged, _REFRESH_AGE, now).items():
            checkpoint.write(topic, partition, offset)
    manifest = Manifest(
        batch_id=new_batch_id(now),
        run_id=run_id,
        run_url=run_url,
        group=settings.group,
        topic=topic.name,
        topic_id=topic.topic_id,
        planned_at=now.isoformat(timespec="seconds"),
        partitions=tuple(parts),
        needs_claim=True,
        shards=_distribute(parts, settings.shards),
        left_for_later_runs=left,
        blocked=tuple(blocked),
        seconds=round(time.monotonic() - began, 3),
    )
    if parts:
        claims.save(manifest)
    return manifest


def plan_alarms(cluster: Cluster, settings: Settings, manifest: Manifest) -> list[AlarmState]:
    """Return, for a planned batch, the state of each kind of alarm that `plan` finds.

    The alarm on offsets that are left for later runs is included only if the run has nothing to read: otherwise how
    many are left is known later, and the task `reports` finds that alarm. The broker is asked only if something waits.
    """
    starts = {part.partition: part.start for part in manifest.partitions}
    oldest = read_oldest_times(cluster, manifest.group, manifest.topic, starts)
    # Messages after the last stable offset can only be read uncommitted.
    stable = {blocked.partition: blocked.stable for blocked in manifest.blocked}
    oldest |= read_oldest_times(cluster, manifest.group, manifest.topic, stable, "read_uncommitted")
    lags = [
        PartitionLag(
            part.partition, part.committed_before, part.low, part.stable, oldest.get(part.partition), part.moved_from
        )
        for part in manifest.partitions
    ]
    lags += [
        PartitionLag(
            blocked.partition,
            blocked.committed,
            blocked.low,
            blocked.stable,
            oldest.get(blocked.partition),
            blocked=blocked.high - blocked.stable,
        )
        for blocked in manifest.blocked
    ]
    retention = read_retention(cluster, manifest.topic) if lags else None
    alarms = find_alarms(manifest.topic, lags, retention, settings, datetime.now(UTC))
    return alarms if manifest.partitions else [*alarms, find_backlog_alarm(manifest, {}, settings)]


def _distribute(parts: Sequence[PartitionBatch], shards: int) -> tuple[tuple[int, ...], ...]:
    """Return the partition numbers of each shard. Each partition, largest first, goes to the smallest shard so far."""
    offsets = [0] * min(shards, len(parts))
    partitions: list[list[int]] = [[] for _ in offsets]
    for part in sorted(parts, key=lambda part: part.start - part.end):
        shard = offsets.index(min(offsets))
        offsets[shard] += part.end - part.start
        partitions[shard].append(part.partition)
    return tuple(tuple(sorted(numbers)) for numbers in partitions)


def _plan_partitions(
    cluster: Cluster,
    settings: Settings,
    topic: Topic,
    committed: Mapping[int, CommittedOffset],
    checkpoint: Checkpoint,
) -> tuple[list[PartitionBatch], int, list[BlockedPartition]]:
    """Return partitions with an offset to commit, the number of offsets left for later runs, and blocked partitions."""
    parts, left, blocked = [], 0, []
    lows = cluster.first_offsets(topic.name, topic.partitions)
    # High watermarks come first: messages that arrive between the two requests must not look blocked.
    highs = cluster.high_watermarks(topic.name, topic.partitions)
    stables = cluster.last_stable_offsets(topic.name, topic.partitions)
    for partition in topic.partitions:
        low, stable, current = lows[partition], stables[partition], committed[partition]
        _require_same_topic(settings.group, topic, partition, current, stable, checkpoint)
        moved_from = _moved_from(topic, partition, committed, low, checkpoint)
        start = low if current.offset is None else max(current.offset, low)
        lost = start - current.offset if current.offset is not None else 0
        if lost:
            log.error(
                "%s/%s: %s offsets from %s to %s expired before they were read: the topic's retention is shorter than "
                "this DAG's outage",
                *(topic.name, partition, lost, current.offset, start),
            )
        # FRAUD_MAX_PAYMENTS limits the offsets of each partition; the batch may have that many from each.
        end = min(stable, start + settings.max_payments)
        left += stable - end
        part = PartitionBatch(
            partition,
            start,
            end,
            current.offset,
            lost=lost,
            low=low,
            stable=stable,
            moved_from=moved_from,
            batch_before=current.batch,
        )
        if part.needs_commit:
            parts.append(part)
        elif highs[partition] > stable:
            blocked.append(BlockedPartition(partition, current.offset, low, stable, highs[partition]))
    return parts, left, blocked


def _moved_from(
    topic: Topic, partition: int, committed: Mapping[int, CommittedOffset], low: int, checkpoint: Checkpoint
) -> int | None:
    """Return where this DAG's runs would have continued, if another program has committed another offset since.

    Otherwise return None.
    """
    current = committed[partition]
    if current.offset is None or current.note is not None:
        return None
    earlier = checkpoint.read(topic, partition)
    if earlier is not None and earlier.topic_id == topic.topic_id:
        reached = earlier.offset
    elif any(_is_from_batch(offset, topic) for offset in committed.values()):
        # This DAG has used the group on other partitions. It has committed nothing on this one, where it would have
        # started at the first offset.
        reached = low
    else:
        # Only another program has used the group so far: this DAG continues at its offset. From now on the checkpoint
        # says where this DAG was, even if its first batch fails.
        checkpoint.write(topic, partition, current.offset)
        return None
    return reached if reached != current.offset else None


def _is_from_batch(committed: CommittedOffset, topic: Topic) -> bool:
    note = committed.note
    return note is not None and note.topic_id == topic.topic_id and is_batch_id(note.batch)


def _require_same_topic(
    group: str, topic: Topic, partition: int, current: CommittedOffset, stable: int, checkpoint: Checkpoint
) -> None:
    """Raise TopicChangedError if the committed offset is lost, past the end, or of a deleted topic of the same name."""
    name = f"{topic.name}/{partition}"
    remedy = (
        f"Choose the offset at which group {group} continues, and set it with `fraud offsets set --group "
        f"{quote(group)} --topic {topic.name} --partition {partition} --to earliest` (or latest, an offset, a time)"
    )
    if current.offset is None:
        # Kafka forgets the group's offsets with the topic.
        earlier = checkpoint.read(topic, partition)
    else:
        earlier = PartitionCheckpoint(current.note.topic_id, current.offset) if current.note is not None else None
    if earlier is not None and earlier.topic_id != topic.topic_id:
        raise TopicChangedError(
            f"{name}: the topic was deleted and recreated (id {earlier.topic_id}, now {topic.topic_id}) after offset "
            f"{earlier.offset} was committed. {remedy}"
        )
    if current.offset is None:
        if earlier is not None:
            raise TopicChangedError(
                f"{name}: the group's committed offset is gone; it had reached {earlier.offset}. Starting at the "
                f"earliest payment could score everything again. {remedy}"
            )
    elif current.offset > stable and current.offset > 0:
        raise TopicChangedError(
            f"{name}: committed offset {current.offset} is past the last stable offset {stable}: the topic was "
            f"truncated or recreated, or the offset was set by hand. {remedy}"
        )
