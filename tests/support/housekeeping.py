"""Runs the DAG housekeeping and `fraud clean-history` on a long history, and checks what must stay."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from dev.stack.part import BIN, ROOT
from tests.support.history import GROUP, MADE, TABLES, History
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import DAG, Outputs, Pipeline

log = logging.getLogger(__name__)

HOUSEKEEPING = "housekeeping"
KEPT_DAYS = 7
# Runs of a DAG that had none of late.
RESTING = 3
# More than FRAUD_MODEL_CACHE_GB.
MODELS, MODEL_GIGABYTES = 15, 1.0


def keep_house(pipeline: Pipeline, minutes_apart: int) -> dict[str, float]:
    """Clean a month of runs, and return the seconds that each step took."""
    pipeline.settle()
    like, _ = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH), {"model": "previous", "keep": True})
    history = History(pipeline.stack, range(360, 30 * 1440, minutes_apart))
    took = {}
    try:
        took["rows"] = _timed(lambda: history.make_rows(like))
        took["files"] = _timed(lambda: history.make_files(like))
        history.make_models(MODELS, MODEL_GIGABYTES)
        _make_what_must_stay(pipeline, history)
        needed = _needed(pipeline, history)
        per_run = {table: history.count(table) // len(history.ages) for table in TABLES}
        assert per_run["task_instance"] >= 8

        took["housekeeping"] = _timed(lambda: _run_housekeeping(pipeline))
        _check_folders(history)
        took["clean-history"] = _timed(lambda: _clean_history(pipeline, history))
        _check_rows(history, per_run)
        assert _needed(pipeline, history) == needed
        _check_that_all_works(pipeline)
    finally:
        history.remove()
        pipeline.end_hold()
    log.info("%s: %s", {table: rows * len(history.ages) for table, rows in per_run.items()}, took)
    return took


def _timed(step: Any) -> float:
    began = time.monotonic()
    step()
    return time.monotonic() - began


def _make_what_must_stay(pipeline: Pipeline, history: History) -> None:
    pipeline.api.request("POST", "connections", json={"connection_id": MADE, "conn_type": "http"})
    # The last run of a DAG that rests.
    history.ask(
        "INSERT INTO dag_run (dag_id, run_id, run_type, run_after, start_date, state) SELECT 'resting', %s || days, "
        "'scheduled', now() - days * interval '1 day', now() - days * interval '1 day', 'success' "
        "FROM generate_series(20, 19 + %s) AS days",
        MADE,
        RESTING,
    )
    for name in (f"outbox/{GROUP}/topic/{history.batches()[0].name}.committed", f"incidents/{MADE}.json"):
        path = history.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _needed(pipeline: Pipeline, history: History) -> Mapping[str, Any]:
    """Return the data that no cleaning may touch."""
    return {
        "hold": pipeline.held(),
        "incidents": sorted(path.name for path in history.staging.glob("incidents/*")),
        "owed": sorted(path.name for path in history.staging.glob("outbox/*/*/*")),
        **{
            table: history.ask(f"SELECT entry::text FROM {table} AS entry ORDER BY 1")
            for table in ("connection", "variable", "slot_pool", "dag_version", "dag_code", "log_template")
        },
        "paused": history.ask("SELECT dag_id, is_paused, is_stale FROM dag ORDER BY 1"),
        "real runs": history.ask(
            "SELECT run_id, state FROM dag_run WHERE run_id NOT LIKE 'made%%' AND dag_id = %s ORDER BY 1", DAG
        ),
        "real XComs": history.ask("SELECT count(*) FROM xcom WHERE run_id NOT LIKE 'made%%' AND dag_id = %s", DAG),
        "real tasks": history.ask(
            "SELECT count(*) FROM task_instance WHERE run_id NOT LIKE 'made%%' AND dag_id = %s", DAG
        ),
        "last of a DAG that rests": history.ask("SELECT max(start_date) FROM dag_run WHERE dag_id = 'resting'"),
    }


def _run_housekeeping(pipeline: Pipeline) -> None:
    api = pipeline.api
    api.wait_for_dag(HOUSEKEEPING)
    api.pause(HOUSEKEEPING, False)
    try:
        run_id = api.trigger(HOUSEKEEPING)
        run = api.wait_for_run(HOUSEKEEPING, run_id, 1_200)
    finally:
        api.pause(HOUSEKEEPING, True)
    assert run["state"] == "success", api.tasks(HOUSEKEEPING, run_id)
    counts = {task: api.xcom(HOUSEKEEPING, run_id, task) for task in ("trim_staging", "trim_models", "trim_logs")}
    assert all(any(told.values()) for told in counts.values()), counts


def _check_folders(history: History) -> None:
    settings = history.settings
    oldest = time.time() - settings.log_days * 86_400 - 3_600
    files = history.log_files()
    assert min(path.stat().st_mtime for path in files) > oldest
    folder = history.logs / f"dag_id={DAG}"
    runs = {path.relative_to(folder).parts[0] for path in files if MADE in str(path)}
    assert len(runs) in history.younger(days=settings.log_days)
    assert {path.name for path in folder.glob(f"run_id={MADE}*")} == runs
    # By the hour, and the one whose report is owed.
    batches = [path for path in history.batches() if (path / "payments-0-0.parquet").exists()]
    least, most = (history.younger(hours=settings.staging_hours + hours) for hours in (0, 1))
    assert least.start + 1 <= len(batches) <= most.stop
    assert (history.staging / "incidents" / f"{MADE}.json").exists()
    assert {path.name for path in batches} >= {path.stem for path in history.staging.glob(f"outbox/{GROUP}/topic/*")}
    sizes = [path.stat().st_size for path in settings.model_cache.rglob("*") if path.is_file()]
    assert sum(sizes) <= settings.model_cache_gb * 1e9
    # The least recently used went.
    assert history.models() == {f"{MADE}{number}" for number in range(MODELS - len(history.models()), MODELS)}


def _clean_history(pipeline: Pipeline, history: History) -> None:
    done = subprocess.run(
        [str(BIN / "fraud"), "clean-history"],
        env={**pipeline.stack.env, "FRAUD_HISTORY_DAYS": str(KEPT_DAYS), "PATH": "/usr/bin:/bin"},
        cwd=ROOT, capture_output=True, text=True, timeout=1_200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    gone = len(history.ages) + RESTING - history.count("dag_run")
    assert f" {gone:,} of dag_run" in done.stdout, done.stdout


def _check_rows(history: History, per_run: Mapping[str, int]) -> None:
    left = {table: history.count(table) for table in TABLES}
    # But for the last one of the DAG that rests.
    left["dag_run"] -= 1
    assert left["dag_run"] in history.younger(days=KEPT_DAYS)
    wanted = {table: rows * left["dag_run"] for table, rows in per_run.items()}
    # Log entries go by their own time: what the run at the very limit wrote in its last seconds is younger than it.
    assert 0 <= left["log"] - wanted["log"] < per_run["log"], (left, wanted)
    assert {**left, "log": 0} == {**wanted, "log": 0}, (left, wanted)
    assert history.ask("SELECT relname FROM pg_class WHERE relname LIKE '\\_airflow\\_deleted%%' AND %s", True) == []
    assert history.ask("SELECT 1 FROM callback WHERE created_at < now() - make_interval(days => %s)", KEPT_DAYS) == []


def _check_that_all_works(pipeline: Pipeline) -> None:
    outputs = Outputs(pipeline.stack.bootstrap_servers)
    run_id, sent = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH))
    outputs.scored(sent)
    # The model that was held before is held still.
    assert pipeline.counts(run_id, "resolve_model")["chosen_by"] == "hold"
    ask = pipeline.api.request
    runs = ask("GET", f"grid/runs/{DAG}", below="/ui", params={"limit": 25, "order_by": "-run_after"})
    assert run_id in {run["run_id"] for run in runs}
    assert ask("GET", f"grid/structure/{DAG}", below="/ui")
    assert ask("GET", "dags", below="/ui")["dags"]
