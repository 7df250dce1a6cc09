"""Airflow's own hook for site settings: gives the tests' scheduler and workers breakpoints, and tasks that start fast.

`$AIRFLOW_HOME/breakpoint` names a point of a step and which time it is passed ("offsets sent 2"). The process that
gets there takes the file away, so that no other one stops, writes its id to `breakpoint.pid` and stops itself.

`$AIRFLOW_HOME/by-hand` takes all DAGs but those that it names off their schedules: then they run when a test triggers
them, and at no other time.
`$AIRFLOW_HOME/chunk` says of how many payments a staged chunk is, so that few payments make many chunks.
With `$AIRFLOW_HOME/watchful`, a worker that is gone or frozen is noticed in seconds: no test need wait for a minute.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HOME = Path(os.environ["AIRFLOW_HOME"])
passed: Counter[str] = Counter()


def reached(point: str) -> None:
    passed[point] += 1
    file = HOME / "breakpoint"
    if not file.exists() or file.read_text() != f"{point} {passed[point]}":
        return
    file.unlink()
    pid = HOME / "breakpoint.pid.part"
    pid.write_text(str(os.getpid()))
    pid.rename(HOME / "breakpoint.pid")
    os.kill(os.getpid(), signal.SIGSTOP)


def dag_policy(dag: Any) -> None:
    by_hand = HOME / "by-hand"
    if by_hand.exists() and dag.dag_id not in by_hand.read_text().split():
        from airflow.sdk.definitions.timetables.simple import NullTimetable

        dag.timetable = NullTimetable()


# Passed on entry. The steps import these when they run, so what stands here before the fork is what they get.
POINTS = {
    "plan": "include.batch.planner:plan",
    "planned": "include.batch.planner:plan_alarms",
    "drain": "include.batch.drain:drain",
    "drained": "include.batch.manifest:Manifest.save_drained",
    "resolve": "include.models.resolve:resolve",
    "hold set": "include.models.hold_change:HoldChange.to_json",
    "chunk staged": "include.batch.chunks:write_payments",
    "predict": "include.batch.predict:predict",
    "chunk scored": "include.batch.chunks:write_predictions",
    "predicted": "include.batch.scored_batch:ScoredBatch.save",
    "publish": "include.batch.publish:publish",
    "chunk published": "include.batch.messages:OutgoingMessages._chunk",
    "mail": "include.batch.outbox:Outbox.pending_reports",
    "mail accepted": "include.batch.outbox:Outbox.record_delivery",
    # Of the ledger: before its transaction, inside of it with the rows written, and after it.
    "record": "include.ledger.recorder:record",
    "ledger transaction": "include.ledger.predictions:Predictions.write",
    "rows written": "include.ledger.predictions:Predictions._move",
    "recorded": "include.ledger.output_dead_letters:OutputDeadLetters.send",
}

# A worker that gives no sign of life; tasks of a scheduler that gives none, which only another scheduler takes up.
WATCHFUL = {
    "TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    # Airflow 3.3.2 writes each heartbeat with the time of the one before: at its default of 5 a scheduler that is well
    # now and then took itself for dead, and began its own running task a second time.
    "SCHEDULER_HEARTBEAT_SEC": "2",
    "ORPHANED_TASKS_CHECK_INTERVAL": "5",
}


def _stop_at(point: str, place: str) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original = getattr(owner, name)

    @functools.wraps(original)
    def passing(*words: Any, **named: Any) -> Any:
        reached(point)
        return original(*words, **named)

    setattr(owner, name, passing)


if {"scheduler", "worker"} & set(sys.argv):
    import include.batch.publish

    include.batch.publish.publish = functools.partial(include.batch.publish.publish, on_step=reached)
    for _point, _place in POINTS.items():
        _stop_at(_point, _place)
    if (HOME / "chunk").exists():
        import include.batch.chunk_groups
        import include.batch.drain
        import include.batch.predict
        import include.kafka.range_reader
        import include.ledger.recorder

        size = int((HOME / "chunk").read_text())
        include.batch.drain._MAX_BUFFERED_ROWS = include.batch.chunk_groups._GROUP_ROWS = size
        include.batch.predict._MAX_PAYMENTS = 2 * size
        include.kafka.range_reader._MAX_MESSAGES = size
        include.ledger.recorder._HELD_ROWS = size
    if (HOME / "watchful").exists():
        for _name, _seconds in WATCHFUL.items():
            os.environ[f"AIRFLOW__SCHEDULER__{_name}"] = _seconds

    # Only now: what is preloaded takes the steps as it finds them.
    from include.preload import preload

    preload()
