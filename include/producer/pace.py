"""Deals out items at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")

_AT_ONCE = 1_000
_TICK = 0.02
_LOOK_AROUND = 1.0


def paced(items: Iterable[Item], rate: float, stop: threading.Event) -> Iterator[list[Item]]:
    """Lists of the items that are due, until they or `stop` end it; a rate of 0 is as fast as they are taken.

    What could not be taken in time for more than a second is not caught up with: a live feed has no such bursts.
    """
    items = iter(items)
    begin = time.monotonic()
    taken = 0
    while not stop.is_set():
        if rate:
            lateness = time.monotonic() - begin - taken / rate
            if lateness < 0:
                stop.wait(min(max(-lateness, _TICK), _LOOK_AROUND))
                if -lateness > _LOOK_AROUND:
                    yield []
                continue
            if lateness > 1 + 1 / rate:
                begin += lateness
                lateness = 0.0
            due = min(int(lateness * rate) + 1, _AT_ONCE)
        else:
            due = _AT_ONCE
        part = list(islice(items, due))
        if not part:
            return
        taken += len(part)
        yield part
