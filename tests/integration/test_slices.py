"""A batch of many partitions: as many producers at once as one slice has, however many partitions there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.batch.publish import Outcome
from include.kafka import fenced_producers
from tests.integration.test_protocol import payments, scored, send, stands_at
from tests.support.scoring import Scoring

PARTITIONS, SLICE = 12, 3
# librdkafka's main thread, and one for each of: the broker as it was given, as it names itself, as coordinator.
THREADS_EACH = 4


def threads() -> int:
    """Of this process, librdkafka's too."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_threads_do_not_grow_with_the_partitions(scoring: Callable[..., Scoring], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fenced_producers, "_SLICE_PARTITIONS", SLICE)
    here = scoring(PARTITIONS)
    for partition in range(PARTITIONS):
        send(here, *payments(1, 2), partition=partition)
    manifest = here.drain_and_predict()
    before, most = threads(), 0

    def reached(point: str) -> None:
        nonlocal most
        most = max(most, threads())

    published = here.publish(manifest, reached)
    assert set(published.outcomes.values()) == {Outcome.PUBLISHED}
    assert (len(published.outcomes), published.predictions) == (PARTITIONS, 2 * PARTITIONS)
    assert stands_at(here) == dict.fromkeys(range(PARTITIONS), 2)
    assert scored(here) == sorted(f"{partition}/{offset}" for partition in range(PARTITIONS) for offset in (0, 1))
    # Two clients more: the consumer, and the admin client, which has a thread more for its results.
    assert most - before <= (SLICE + 2) * THREADS_EACH + 1 < PARTITIONS * THREADS_EACH / 2


def test_each_partition_comes_in_one_slice(scoring: Callable[..., Scoring]):
    here = scoring(3)
    numbers, partitions = [2, 0, 1], []
    with here.group() as group:
        for producers in group.fence(numbers):
            partitions += [partition for partition in producers if producers[partition]]
        assert partitions == numbers
        assert list(group.fence([])) == []
