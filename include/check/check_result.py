"""Run the checks of `fraud check`, which try what the product will use. Each result is one line: ok, or what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from include.errors import FraudError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `name`: the connection, topic or setting that was checked. `text` names the remedy."""

    name: str
    text: str
    ok: bool = True


# Yields its results, and raises FraudError if it cannot continue.
Check = Callable[[], Iterator[CheckResult]]


def run_checks(checks: Sequence[tuple[str, Check]]) -> Iterator[CheckResult]:
    """Run the checks in parallel, and yield their results in the order of `checks`.

    If a check raises an error, its last result has its name and the error's text, or only the class of an error that is
    no FraudError.
    """
    with ThreadPoolExecutor(max(1, len(checks))) as threads:
        futures = [threads.submit(_run, name, check) for name, check in checks]
        for future in futures:
            yield from future.result()


def _run(name: str, check: Check) -> list[CheckResult]:
    results: list[CheckResult] = []
    try:
        # Results before an error are kept.
        results.extend(check())
    except FraudError as error:
        results.append(CheckResult(name, str(error), ok=False))
    except Exception as error:
        # The text of a library's error may quote a secret.
        log.debug("%s", name, exc_info=True)
        results.append(CheckResult(name, f"failed with {type(error).__name__}", ok=False))
    return results
