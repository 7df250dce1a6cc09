"""Housekeeping on a month of runs, an hour apart; `make test-all` has one with a run a minute."""

from __future__ import annotations

import signal
import subprocess
import time

import psutil
import psycopg2

from dev.stack.part import BIN, ROOT
from tests.support.history import History
from tests.support.housekeeping import keep_house
from tests.support.live_stack import LiveStack
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until


def test_month_of_runs_is_trimmed_and_needed_data_stays(pipeline: Pipeline) -> None:
    keep_house(pipeline, minutes_apart=60)


def test_interrupted_clean_history_leaves_no_table(pipeline: Pipeline) -> None:
    """`airflow db clean` copies rows before it deletes them, and then drops the copy."""
    history = History(pipeline.stack, range(0))
    copies = "SELECT relname FROM pg_class WHERE relname LIKE '\\_airflow\\_deleted%'"
    pipeline.rest()
    assert history.ask(copies) == []
    history.ask(
        "INSERT INTO callback (id, type, fetch_method, data, state, priority_weight, created_at) "
        "VALUES (gen_random_uuid(), 'triggerer', 'import_path', '{}', 'success', 1, now() - interval '99 days')"
    )
    holder = psycopg2.connect(history.url)
    try:
        with holder.cursor() as cursor:
            # Others may read the table but not delete from it.
            cursor.execute("LOCK TABLE callback IN SHARE MODE")
        with subprocess.Popen(
            [str(BIN / "fraud"), "clean-history"], env={"PATH": "/usr/bin:/bin", **pipeline.stack.env}, cwd=ROOT
        ) as cleaning:
            wait_until(lambda: history.ask(copies), "nothing is copied")
            cleaning.send_signal(signal.SIGTERM)
            holder.rollback()
            assert cleaning.wait(20) == 128 + signal.SIGTERM
    finally:
        holder.close()
    assert history.ask(copies) == []


def test_stack_runs_clean_history_at_intervals(stack: LiveStack) -> None:
    process = psutil.Process(stack.pid("history"))
    assert process.cmdline()[-3:] == ["clean-history", "--every", "24"]
    assert not process.children()
    assert sum(process.cpu_times()[:2]) < 10
    began = time.monotonic()
    stack.stop("history")
    assert time.monotonic() - began < 10
    stack.start("history")
