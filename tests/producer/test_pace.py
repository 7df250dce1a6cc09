from __future__ import annotations

import itertools
import threading
import time

import pytest

from include.producer.pace import paced


def test_the_rate_is_kept() -> None:
    begin = time.monotonic()
    parts = list(paced(range(300), 500, threading.Event()))
    seconds = time.monotonic() - begin
    assert list(itertools.chain.from_iterable(parts)) == list(range(300))
    assert 0.59 < seconds < 1.5
    assert len(parts) > 10


def test_without_a_rate_nothing_waits() -> None:
    begin = time.monotonic()
    assert sum(map(len, paced(range(100_000), 0, threading.Event()))) == 100_000
    assert time.monotonic() - begin < 0.5


def test_a_slow_rate_gives_empty_lists_to_look_around() -> None:
    parts = paced(range(2), 0.4, threading.Event())
    assert [next(parts), next(parts), next(parts)] == [[0], [], []]


def test_a_pause_is_not_caught_up_with() -> None:
    parts = paced(itertools.count(), 100, threading.Event())
    next(parts)
    time.sleep(1.5)  # the pause itself is what is tested
    assert sum(len(next(parts)) for _ in range(3)) < 20


@pytest.mark.parametrize("rate", [0, 0.01, 1_000])
def test_stop_ends_it(rate: float) -> None:
    stop = threading.Event()
    parts = paced(itertools.count(), rate, stop)
    next(parts)
    threading.Timer(0.2, stop.set).start()
    begin = time.monotonic()
    for _ in parts:
        pass
    assert time.monotonic() - begin < 2
