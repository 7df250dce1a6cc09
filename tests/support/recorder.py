"""A recorder in a process of its own, for tests that kill or freeze it: python -m tests.support.recorder point.

A point is one of POINTS and how often it is reached: "rows written 2". Transactions have few rows.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.publisher import HaltedProcess, halt_at

ROWS = 10
# Passed on entry: before the database's transaction, inside of it with the rows written, and after the last one.
POINTS = ("ledger transaction", "rows written", "recorded")


def recorder(stop_at: str, environment: dict[str, str]) -> HaltedProcess:
    return HaltedProcess.at(stop_at, "tests.support.recorder", environment=environment)


def main() -> None:
    from include.kafka.cluster import Cluster
    from include.ledger import recorder
    from include.ledger.connection import LedgerConnection
    from include.ledger.output_dead_letters import OutputDeadLetters
    from include.ledger.predictions import Predictions
    from include.settings import Settings

    passed: Counter[str] = Counter()
    reached = halt_at(sys.argv[1])

    def announced(point: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*words: Any) -> Any:
            passed[point] += 1
            reached(f"{point} {passed[point]}")
            return original(*words)

        return passing

    recorder._HELD_ROWS = ROWS
    for point, owner, name in zip(
        POINTS, (Predictions, Predictions, OutputDeadLetters), ("write", "_advance_offsets", "send"), strict=True
    ):
        setattr(owner, name, announced(point, getattr(owner, name)))
    done = recorder.record(
        Cluster.from_environment(), Settings.from_environment(), LedgerConnection.from_environment(os.environ)
    )
    sys.stdout.write(f"{done.messages} messages\n")


if __name__ == "__main__":
    main()
