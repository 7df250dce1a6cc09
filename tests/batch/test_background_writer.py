from __future__ import annotations

import threading

import pytest

from include.batch.background_writer import BackgroundWriter


def test_writes_run_in_order_while_the_caller_continues():
    begun, may_end, done = threading.Event(), threading.Event(), []

    def write(number: int) -> None:
        begun.set()
        assert may_end.wait(10)
        done.append(number)

    with BackgroundWriter() as writer:
        writer.submit(write, 1)
        assert begun.wait(10)
        assert done == []
        may_end.set()
        writer.submit(write, 2)
        assert done[0] == 1
    assert done == [1, 2]


@pytest.mark.parametrize("writes", [1, 2])
def test_failed_write_is_raised_by_the_next_write_or_at_the_end(writes: int):
    def run() -> None:
        with BackgroundWriter() as writer:
            for _ in range(writes):
                writer.submit(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run()


def test_exception_of_the_caller_cancels_the_write():
    cancelled = threading.Event()

    def run() -> None:
        with BackgroundWriter(cancel=cancelled.set) as writer:
            writer.submit(cancelled.wait, 10)
            raise KeyError

    with pytest.raises(KeyError):
        run()
