"""Batches of many partitions: no more producers exist at a time than a slice has partitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.batch.publish import Outcome
from include.kafka import transactional_producers
from tests.integration.test_protocol import committed_offsets, payments, scored, send
from tests.support.scoring import Scoring

PARTITIONS, SLICE = 12, 3
# librdkafka's main thread, and a thread each for the bootstrap broker, the broker and the coordinator.
THREADS_EACH = 4


def threads() -> int:
    """Return the number of threads of this process, librdkafka's included."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_number_of_threads_does_not_grow_with_partitions(
    scoring: Callable[..., Scoring], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transactional_producers, "_SLICE_PARTITIONS", SLICE)
    here = scoring(PARTITIONS)
    for partition in range(PARTITIONS):
        send(here, *payments(1, 2), partition=partition)
    manifest = here.drain_and_predict()
    before, most = threads(), 0

    def on_step(step: str) -> None:
        nonlocal most
        most = max(most, threads())

    published = here.publish(manifest, on_step)
    assert set(published.outcomes.values()) == {Outcome.PUBLISHED}
    assert (len(published.outcomes), published.predictions) == (PARTITIONS, 2 * PARTITIONS)
    assert committed_offsets(here) == dict.fromkeys(range(PARTITIONS), 2)
    assert scored(here) == sorted(f"{partition}/{offset}" for partition in range(PARTITIONS) for offset in (0, 1))
    # Two more clients: the consumer, and the admin client, which has one more thread for its results.
    assert most - before <= (SLICE + 2) * THREADS_EACH + 1 < PARTITIONS * THREADS_EACH / 2


def test_each_partition_is_in_one_slice(scoring: Callable[..., Scoring]):
    here = scoring(3)
    numbers, partitions = [2, 0, 1], []
    with here.group() as group:
        for producers in group.fence(numbers):
            partitions += [partition for partition in producers if producers[partition]]
        assert partitions == numbers
        assert list(group.fence([])) == []
