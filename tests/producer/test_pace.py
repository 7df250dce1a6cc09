"""Pacing of items at a steady rate."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from include.producer.pace import pace


def test_rate_is_kept() -> None:
    begin = time.monotonic()
    parts = list(pace(range(300), 500, threading.Event()))
    seconds = time.monotonic() - begin
    assert list(itertools.chain.from_iterable(parts)) == list(range(300))
    assert 0.59 < seconds < 1.5
    assert len(parts) > 10


def test_rate_0_does_not_wait() -> None:
    begin = time.monotonic()
    assert sum(map(len, pace(range(100_000), 0, threading.Event()))) == 100_000
    assert time.monotonic() - begin < 0.5


def test_slow_rate_yields_empty_lists_meanwhile() -> None:
    parts = pace(range(2), 0.4, threading.Event())
    assert [next(parts), next(parts), next(parts)] == [[0], [], []]


def test_missed_items_after_a_pause_are_not_due_at_once() -> None:
    parts = pace(itertools.count(), 100, threading.Event())
    next(parts)
    time.sleep(1.5)  # the pause itself is what is tested
    assert sum(len(next(parts)) for _ in range(3)) < 20


@pytest.mark.parametrize("rate", [0, 0.01, 1_000])
def test_stop_ends_pacing(rate: float) -> None:
    stop = threading.Event()
    parts = pace(itertools.count(), rate, stop)
    next(parts)
    threading.Timer(0.2, stop.set).start()
    begin = time.monotonic()
    for _ in parts:
        pass
    assert time.monotonic() - begin < 2
