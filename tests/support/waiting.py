"""Waits for a condition instead of sleeping for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], problem: str, seconds: float = 120) -> Any:
    """Wait until the condition returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{problem} within {seconds:.0f} s")
        time.sleep(0.3)
    return seen
