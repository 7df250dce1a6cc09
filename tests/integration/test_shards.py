"""Batches of several shards: each payment is published once, in any order of shards, even if one of them fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.batch.manifest import Manifest
from include.batch.predict import predict
from include.errors import OffsetsChangedError, StagedFileGoneError
from include.models.model_run import ModelRun
from tests.integration.test_protocol import committed_offsets, payments, pending_batches, scored, send, set_offset
from tests.support.scoring import DELIVERY, MODEL, Scoring

Make = Callable[..., Scoring]
PARTITIONS = 5


def fill(scoring: Scoring, *counts: int) -> list[str]:
    """Send so many payments to each partition, and return their sources."""
    for partition, count in enumerate(counts):
        send(scoring, *payments(*range(count)), partition=partition)
    return sorted(f"{partition}/{offset}" for partition, count in enumerate(counts) for offset in range(count))


def drained_and_scored(scoring: Scoring, shards: int) -> Manifest:
    manifest = scoring.plan(shards)
    for shard in reversed(range(len(manifest.shards))):
        scoring.drain_shard(manifest, shard)
    for shard in range(len(manifest.shards)):
        scoring.predict_without_model(manifest, shard=shard)
    return manifest


def test_shards_have_similar_sizes_and_none_is_empty(scoring: Make):
    here = scoring(PARTITIONS)
    fill(here, 10, 1, 1, 8, 0)
    assert here.plan(2).shards == ((0,), (1, 2, 3))
    assert here.plan(1).shards == ((0, 1, 2, 3),)
    assert sorted(here.plan(9).shards) == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_publish_each_payment_once_with_one_report(scoring: Make, order: tuple[int, ...]):
    here = scoring(PARTITIONS)
    sent = fill(here, 3, 5, 2, 4, 1)
    manifest = drained_and_scored(here, 3)
    for shard in order:
        here.publish(manifest, shard=shard)
    assert scored(here) == sent
    (report,) = here.outbox.pending_reports()
    assert report.facts.frauds == report.facts.scored == 15
    assert [(part, end) for _, part, _, end in report.facts.ranges] == [(0, 3), (1, 5), (2, 2), (3, 4), (4, 1)]
    here.outbox.record_delivery(report, DELIVERY)
    assert pending_batches(here) == []
    assert not here.drain().partitions


def test_number_of_shards_may_change_between_runs(scoring: Make):
    here = scoring(PARTITIONS)
    sent: list[str] = []
    for round_, shards in enumerate((1, 2, 5, 3, 1)):
        for partition in range(PARTITIONS):
            send(here, *payments(*range(partition + 1)), partition=partition)
            sent += [f"{partition}/{round_ * (partition + 1) + number}" for number in range(partition + 1)]
        manifest = drained_and_scored(here, shards)
        for shard in range(len(manifest.shards)):
            here.publish(manifest, shard=shard)
    assert scored(here) == sorted(sent)


def test_batches_with_other_shards_publish_each_payment_once(scoring: Make):
    """Two runs of the same payments have different shards; each partition is published by one of them."""
    here = scoring(PARTITIONS)
    sent = fill(here, 2, 2, 2, 2, 2)
    two, three = drained_and_scored(here, 2), drained_and_scored(here, 3)
    here.publish(two, shard=0)
    for shard in range(3):
        here.publish(three, shard=shard)
    here.publish(two, shard=1)
    assert scored(here) == sent
    assert committed_offsets(here) == dict.fromkeys(range(PARTITIONS), 2)


def test_failed_shard_stops_no_other(scoring: Make):
    here = scoring(PARTITIONS)
    sent = fill(here, 4, 4, 4, 4, 4)
    manifest = drained_and_scored(here, 2)
    moved = manifest.shards[0][0]
    set_offset(here, 1, moved)
    with pytest.raises(OffsetsChangedError):
        here.publish(manifest, shard=0)
    here.publish(manifest, shard=1)
    published = [place for place in sent if not place.startswith(f"{moved}/")]
    assert scored(here) == published
    (report,) = here.outbox.pending_reports()
    assert moved not in [partition for _, partition, _, _ in report.facts.ranges]
    manifest = drained_and_scored(here, 3)
    for shard in range(len(manifest.shards)):
        here.publish(manifest, shard=shard)
    assert scored(here) == [place for place in sent if place != f"{moved}/0"]


def test_batch_with_an_undrained_shard_is_neither_scored_nor_published(scoring: Make):
    here = scoring(PARTITIONS)
    fill(here, 1, 1)
    manifest = here.plan(2)
    here.drain_shard(manifest, 0)
    with pytest.raises(StagedFileGoneError, match="drained-1"):
        predict(here.settings, here.storage, manifest, ModelRun.from_dict(MODEL))
    with pytest.raises(StagedFileGoneError, match="scored-0"):
        here.publish(manifest)
    assert scored(here) == []


def test_repeated_drain_stages_the_same_payments(scoring: Make):
    here = scoring(PARTITIONS)
    sent = fill(here, 3, 3)
    manifest = here.plan(2)
    for shard in (0, 1, 0):
        here.drain_shard(manifest, shard)
        # A payment that arrives in between belongs to the next run.
        send(here, *payments(9))
    for shard in (0, 1):
        here.predict_without_model(manifest, shard=shard)
        here.publish(manifest, shard=shard)
    assert scored(here) == sent
