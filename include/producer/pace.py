"""Yield items at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")

_MAX_ITEMS = 1_000
_MIN_WAIT_SECONDS = 0.02
_MAX_WAIT_SECONDS = 1.0


def pace(items: Iterable[Item], rate: float, stop: threading.Event) -> Iterator[list[Item]]:
    """Yield lists of the items that are due, `rate` items a second, until they end or `stop` is set.

    A list, empty if nothing is due, comes at least once a second. With a rate of 0 all items are due at once. After a
    pause of more than a second in the caller, the missed items are not due at once: a live feed has no such bursts.
    """
    items = iter(items)
    begin = time.monotonic()
    count = 0
    while not stop.is_set():
        if rate:
            delay = time.monotonic() - begin - count / rate
            if delay < 0:
                stop.wait(min(max(-delay, _MIN_WAIT_SECONDS), _MAX_WAIT_SECONDS))
                if -delay > _MAX_WAIT_SECONDS:
                    yield []
                continue
            if delay > 1 + 1 / rate:
                begin += delay
                delay = 0.0
            due = min(int(delay * rate) + 1, _MAX_ITEMS)
        else:
            due = _MAX_ITEMS
        part = list(islice(items, due))
        if not part:
            return
        count += len(part)
        yield part
