"""Trying out what the product will use, before the first payment: each check is one line, ok or what mends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from include.errors import FraudError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    name: str
    """What was tried: a connection, a topic, a setting."""
    text: str
    ok: bool = True


# Yields what it finds one by one. Raises FraudError where it cannot go on.
Check = Callable[[], Iterator[CheckResult]]


def run(checks: Sequence[tuple[str, Check]]) -> Iterator[CheckResult]:
    """All of them side by side; what they find in their order. A name says what was tried where a check raises."""
    with ThreadPoolExecutor(max(1, len(checks))) as threads:
        tried = [threads.submit(_all, name, check) for name, check in checks]
        for one in tried:
            yield from one.result()


def _all(name: str, check: Check) -> list[CheckResult]:
    found: list[CheckResult] = []
    try:
        found.extend(check())
    except FraudError as error:
        found.append(CheckResult(name, str(error), ok=False))
    except Exception as error:
        # A foreign error's text may quote what it was given.
        log.debug("%s", name, exc_info=True)
        found.append(CheckResult(name, f"failed with {type(error).__name__}", ok=False))
    return found
