"""Step 1: fixes what a batch is: each partition's offset range, from where the group stands. Reads none, moves none."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from shlex import quote

from include.batch.batch_alarms import Alarm, PartitionLag, find_alarms, find_lag_alarm
from include.batch.checkpoint import Checkpoint, PartitionCheckpoint
from include.batch.claims import Claims
from include.batch.manifest import BlockedPartition, Manifest, PartitionBatch, is_batch_id, new_batch_id
from include.batch.outbox import Outbox
from include.errors import TopicChangedError
from include.kafka.cluster import Cluster, Topic
from include.kafka.committed_offsets import CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.group_admin import fence_producers, recover_offsets, refresh_offsets
from include.kafka.retention import read_oldest_times, read_retention
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)

# Well within offsets.retention.minutes, after which the broker forgets an offset: seven days unless set otherwise.
_KEPT_ALIVE = timedelta(days=1)


def plan(cluster: Cluster, settings: Settings, storage: Storage, *, run_id: str, run_url: str) -> Manifest:
    """Return the offset ranges of the batch that waits now, shared out to at most FRAUD_SHARDS shards.

    No payment is read yet. The manifest has neither partitions nor shards where nothing waits; else it is saved, with
    its claim.
    """
    now, began = datetime.now(UTC), time.monotonic()
    cluster.require_unused_group(settings.group)
    topic = cluster.describe_topic(settings.input_topic)
    with ConsumerGroup.open(cluster, settings.group, topic) as group:
        outbox = Outbox(storage, settings.group, topic.name)
        claims = Claims(storage, settings.group, topic.name, run_url, settings.installation)
        # Free space before staging: otherwise a full disk stays full.
        ended = claims.end_older(outbox, lambda numbers: fence_producers(group, numbers))
        # Before a newer batch overwrites it: the note beside an offset may be the only trace of an earlier one.
        committed = outbox.note_commits(lambda: recover_offsets(group), ended)
        claims.remove(ended, outbox, committed)
        progress = Checkpoint(storage, settings.group)
        parts, lag, held_up = _fix_ranges(cluster, settings, topic, committed, progress)
        idle = {at: committed[at] for at in set(topic.partitions) - {part.partition for part in parts}}
        for partition, offset in refresh_offsets(group, idle, _KEPT_ALIVE, now).items():
            progress.note(topic, partition, offset)
    manifest = Manifest(
        batch_id=new_batch_id(now),
        run_id=run_id,
        run_url=run_url,
        group=settings.group,
        topic=topic.name,
        topic_id=topic.topic_id,
        drained_at=now.isoformat(timespec="seconds"),
        partitions=tuple(parts),
        has_claim=True,
        shards=_share_out(parts, settings.shards),
        lag=lag,
        held_up=tuple(held_up),
        seconds=round(time.monotonic() - began, 3),
    )
    if parts:
        claims.save(manifest)
    return manifest


def alarms(cluster: Cluster, settings: Settings, manifest: Manifest) -> list[Alarm]:
    """Return the alarms of a planned batch: each kind, with an empty cause where the batch does not have it.

    Only a batch without partitions knows here that no offsets are left for later runs. Ask the broker only where
    something waits.
    """
    starts = {part.partition: part.start for part in manifest.partitions}
    oldest = read_oldest_times(cluster, manifest.group, manifest.topic, starts)
    # Only a reader that does not ask for committed messages sees what is blocked.
    blocked = {one.partition: one.stable for one in manifest.held_up}
    oldest |= read_oldest_times(cluster, manifest.group, manifest.topic, blocked, "read_uncommitted")
    waiting = [
        PartitionLag(
            part.partition, part.committed_before, part.low, part.stable, oldest.get(part.partition), part.moved_from
        )
        for part in manifest.partitions
    ]
    waiting += [
        PartitionLag(
            one.partition,
            one.committed,
            one.low,
            one.stable,
            oldest.get(one.partition),
            held_up=one.high - one.stable,
        )
        for one in manifest.held_up
    ]
    retention = read_retention(cluster, manifest.topic) if waiting else None
    found = find_alarms(manifest.topic, waiting, retention, settings, datetime.now(UTC))
    return found if manifest.partitions else [*found, find_lag_alarm(manifest, {}, settings)]


def _share_out(parts: Sequence[PartitionBatch], shards: int) -> tuple[tuple[int, ...], ...]:
    """Partition numbers by shard, the largest first, each to the shard with the least so far."""
    work: list[tuple[int, list[int]]] = [(0, []) for _ in range(min(shards, len(parts)))]
    for part in sorted(parts, key=lambda part: part.start - part.end):
        place = min(range(len(work)), key=lambda place: work[place][0])
        work[place] = (work[place][0] + part.end - part.start, [*work[place][1], part.partition])
    return tuple(tuple(sorted(numbers)) for _, numbers in work)


def _fix_ranges(
    cluster: Cluster,
    settings: Settings,
    topic: Topic,
    committed: Mapping[int, CommittedOffset],
    progress: Checkpoint,
) -> tuple[list[PartitionBatch], int, list[BlockedPartition]]:
    """The partitions with something to commit, how many offsets are left for later runs, and what is held up."""
    parts, lag, held_up = [], 0, []
    lows = cluster.first_offsets(topic.name, topic.partitions)
    # In this order: what comes in between must not look as if it were held up.
    highs = cluster.high_watermarks(topic.name, topic.partitions)
    stables = cluster.last_stable_offsets(topic.name, topic.partitions)
    for partition in topic.partitions:
        low, stable, now = lows[partition], stables[partition], committed[partition]
        _require_same_topic(settings.group, topic, partition, now, stable, progress)
        moved_from = _moved_from(topic, partition, committed, low, progress)
        start = low if now.offset is None else max(now.offset, low)
        lost = start - now.offset if now.offset is not None else 0
        if lost:
            log.error(
                "%s/%s: %s offsets from %s to %s expired before they were read: the topic's retention is shorter than "
                "this DAG's outage",
                *(topic.name, partition, lost, now.offset, start),
            )
        end = min(stable, start + settings.max_payments)
        lag += stable - end
        part = PartitionBatch(
            partition,
            start,
            end,
            now.offset,
            lost=lost,
            low=low,
            stable=stable,
            moved_from=moved_from,
            batch_before=now.batch,
        )
        if part.is_due:
            parts.append(part)
        elif highs[partition] > stable:
            held_up.append(BlockedPartition(partition, now.offset, low, stable, highs[partition]))
    return parts, lag, held_up


def _moved_from(
    topic: Topic, partition: int, committed: Mapping[int, CommittedOffset], low: int, progress: Checkpoint
) -> int | None:
    """How far this group had come by itself, where another program has committed another offset since."""
    now = committed[partition]
    if now.offset is None or now.note is not None:
        return None
    earlier = progress.reached(topic, partition)
    if earlier is not None and earlier.topic_id == topic.topic_id:
        reached = earlier.offset
    elif any(_is_of_a_batch(one, topic) for one in committed.values()):
        # A group that is ours already, not one that another program hands over: this would have begun with the first.
        reached = low
    else:
        # Taken over as it stands. From now on it is ours, even if the first batch does not get through.
        progress.note(topic, partition, now.offset)
        return None
    return reached if reached != now.offset else None


def _is_of_a_batch(committed: CommittedOffset, topic: Topic) -> bool:
    note = committed.note
    return note is not None and note.topic_id == topic.topic_id and is_batch_id(note.batch)


def _require_same_topic(
    group: str, topic: Topic, partition: int, now: CommittedOffset, stable: int, progress: Checkpoint
) -> None:
    place = f"{topic.name}/{partition}"
    mend = (
        f"Decide where group {group} goes on, and set it with `fraud offsets set --group {quote(group)} "
        f"--topic {topic.name} --partition {partition} --to earliest` (or latest, an offset, a time)"
    )
    if now.offset is None:
        # Kafka forgets the group's offsets with the topic.
        earlier = progress.reached(topic, partition)
    else:
        earlier = PartitionCheckpoint(now.note.topic_id, now.offset) if now.note is not None else None
    if earlier is not None and earlier.topic_id != topic.topic_id:
        raise TopicChangedError(
            f"{place}: the topic was deleted and made again (id {earlier.topic_id}, now {topic.topic_id}) after "
            f"offset {earlier.offset} was committed. {mend}"
        )
    if now.offset is None:
        if earlier is not None:
            raise TopicChangedError(
                f"{place}: the group's committed offset is gone; it had reached {earlier.offset}. Starting at the "
                f"earliest payment could score everything again. {mend}"
            )
    elif now.offset > stable and now.offset > 0:
        raise TopicChangedError(
            f"{place}: the committed offset {now.offset} is past the topic's end {stable}: the topic was truncated or "
            f"made again, or the offset was set by hand. {mend}"
        )
