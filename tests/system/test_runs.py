"""Scheduled runs, and what Airflow shows of them."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from dev.airflow_api import FINISHED
from tests.support.commands import airflow
from tests.support.live_stack import LiveStack
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, reported, reports, trans_nums
from tests.support.topics import send
from tests.support.waiting import wait_until


def test_scheduled_run_scores_waiting_payments(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    pipeline.schedule(every_minute=True)
    try:
        known = wait_until(lambda: _runs_so_far(pipeline), "the DAG does not come to rest")
        sent = pipeline.send(payments(GENUINE, FRAUD_FOR_LATEST, FRAUD_FOR_BOTH, GENUINE))
        run_id = _next_scheduled_run(pipeline, known)
    finally:
        pipeline.schedule(every_minute=False)

    arrived = outputs.scored(sent)
    assert [message.payment for message in arrived] == [
        one.payment.scored(fraud) for one, fraud in zip(sent, (0, 1, 1, 0), strict=True)
    ]
    assert [list(message.payment) for message in arrived] == [list(one.payment.scored(0)) for one in sent]
    assert [message.key for message in arrived] == [one.payment.key for one in sent]
    batch = pipeline.counts(run_id, "plan")["batch"]
    for message, one, probability in zip(arrived, sent, (0.0, 1.0, 1.0, 0.0), strict=True):
        scored_at = message.headers.pop("scored_at")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", scored_at)
        assert float(message.headers.pop("fraud_probability")) == probability
        assert message.headers == {
            "model_run_id": pipeline.models.latest,
            "model_name": pipeline.models.name,
            "model_version": "1",
            "source": one.source,
            "row": "0",
            "batch_id": batch,
        }

    (mail,) = reports(inbox)
    assert mail["Subject"] == f"Security alert - Fraud detected: 2 payments, batch {batch}"
    assert sorted(reported([mail])) == sorted(trans_nums(sent[1:3]))
    page = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert f"{pipeline.stack.env['AIRFLOW_URL']}/dags/{DAG}/runs/{run_id}" in page.replace("&#43;", "+")
    assert pipeline.models.name in page

    _check_what_airflow_shows(pipeline, run_id, batch)


def _check_what_airflow_shows(pipeline: Pipeline, run_id: str, batch: str) -> None:
    model = pipeline.models.latest
    assert pipeline.states(run_id) == dict.fromkeys(pipeline.states(run_id), "success") | {"catch_up": "skipped"}
    counts = {
        task: pipeline.counts(run_id, task)
        for task in ("plan", "drain", "resolve_model", "predict", "publish", "reports")
    }
    partitions = counts["publish"].pop("partitions")
    oldest, newest = counts["drain"].pop("oldest_age_seconds"), counts["drain"].pop("newest_age_seconds")
    assert 0 < newest <= oldest < 120
    assert newest <= counts["publish"].pop("newest_age_seconds") < 180
    assert set(partitions.values()) == {"published"}
    assert counts == {
        "plan": {
            "batch": batch, "offsets": 4, "shards": 1, "lost_to_retention": 0, "lag": 0, "reports_owed": 0,
        },
        "drain": {"batch": batch, "payments": 4, "dead_letters": 0, "left": 0},
        "resolve_model": {"batch": batch, "model_run_id": model, "asked": "latest", "chosen_by": "default"},
        "predict": {
            "batch": batch, "model_run_id": model, "scored": 4, "frauds": 2, "dead_letters": 0,
            "dead_letter_reasons": {},
        },
        "publish": {"batch": batch, "published": 4, "dead_letters": 0},
        "reports": {"reports_owed": 1, "lag": 0},
    }  # fmt: skip
    for task in ("resolve_model", "predict"):
        path = f"dags/{DAG}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task}/links"
        params = {"map_index": pipeline.task(run_id, task)["map_index"]}
        (link,) = pipeline.api.request("GET", path, params=params)["extra_links"].values()
        assert link.startswith(pipeline.stack.mlflow_uri)
        assert link.endswith(f"/runs/{model}")
    assert "plan" in pipeline.api.request("GET", f"dags/{DAG}/details")["doc_md"]
    # The server answers these two with an error for a DAG that it runs well, but cannot put in an order.
    grid = pipeline.api.request("GET", f"grid/structure/{DAG}", below="/ui")
    graph = pipeline.api.request("GET", "structure/structure_data", below="/ui", params={"dag_id": DAG})["nodes"]
    tasks = pipeline.api.tasks(DAG, run_id).keys()
    assert {node["id"] for node in grid} == {node["id"] for node in graph if node["type"] == "task"} == tasks


def test_next_run_starts_at_once_if_payments_remain(pipeline: Pipeline, outputs: Outputs) -> None:
    """One partition gets more payments than FRAUD_MAX_PAYMENTS in tests/support/stack.env."""
    pipeline.settle()
    messages = [(one.key, one.message) for one in payments(*[GENUINE] * 1_005)]
    sources = send(pipeline.stack.bootstrap_servers, "topic_1", messages, spread=1)
    run_id = pipeline.finish(pipeline.api.trigger(DAG))
    assert pipeline.counts(run_id, "drain")["payments"] == 1_000
    assert pipeline.counts(run_id, "reports")["lag"] == 5
    assert pipeline.task(run_id, "catch_up")["state"] == "success"

    (following,) = [run["dag_run_id"] for run in pipeline.api.runs(DAG) if run["dag_run_id"].startswith("catch_up__")]
    pipeline.finish(following)
    assert pipeline.counts(following, "drain")["payments"] == 5
    assert pipeline.states(following)["catch_up"] == "skipped"
    assert outputs.sources() == sorted(sources)


def test_idle_run_ends_with_plan(pipeline: Pipeline, stack: LiveStack, inbox: Inbox) -> None:
    pipeline.settle()
    outputs = Outputs(stack.bootstrap_servers)
    run_id = pipeline.finish(pipeline.api.trigger(DAG))
    states = pipeline.states(run_id)
    assert states.pop("plan") == "success"
    assert set(states.values()) == {"skipped"}
    assert pipeline.counts(run_id, "plan")["offsets"] == 0
    assert outputs.count() == 0
    assert not reports(inbox)


def _runs_so_far(pipeline: Pipeline) -> set[str] | None:
    """Return the runs, None while this minute's run is not over or the next one is about to start."""
    now = datetime.now(UTC)
    runs = pipeline.api.runs(DAG)
    over = any(
        datetime.fromisoformat(run["run_after"]) == now.replace(second=0, microsecond=0)
        for run in runs
        if run["run_type"] == "scheduled" and run["state"] in FINISHED
    )
    return {run["dag_run_id"] for run in runs} if over and now.second < 55 and not pipeline.active() else None


def _next_scheduled_run(pipeline: Pipeline, known: set[str]) -> str:
    def fresh() -> str | None:
        runs = [run for run in pipeline.api.runs(DAG) if run["dag_run_id"] not in known]
        return next((run["dag_run_id"] for run in runs if run["run_type"] == "scheduled"), None)

    return pipeline.finish(wait_until(fresh, "no run was scheduled"))


@pytest.mark.parametrize("dag_id", ["score_payments", "record_predictions", "export_confirmed", "housekeeping"])
def test_backfill_is_refused(pipeline: Pipeline, dag_id: str) -> None:
    """Airflow's server and its command refuse it: ten runs at once would fence each other."""
    days = {"from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        pipeline.api.request("POST", "backfills", json={"dag_id": dag_id, **days})
    assert refused.value.response.status_code == httpx.codes.BAD_REQUEST
    assert f"'{dag_id}' does not allow backfill runs" in refused.value.response.text
    assert pipeline.api.request("GET", f"dags/{dag_id}")["is_backfillable"] is False
    if dag_id == DAG:
        words = "--dag-id", DAG, "--from-date", "2026-01-01", "--to-date", "2026-01-02"
        with pytest.raises(subprocess.CalledProcessError) as failed:
            airflow(pipeline.stack.env, "backfill", "create", *words)
        assert "does not allow backfill runs" in failed.value.stderr + failed.value.stdout


def test_run_of_a_paused_dag_can_be_marked_failed_without_loss(pipeline: Pipeline, outputs: Outputs) -> None:
    """docs/operations.md asks for it before an upgrade: the run's next tasks are not started."""
    pipeline.settle()
    sent = pipeline.send(payments(GENUINE, FRAUD_FOR_BOTH))
    pipeline.breakpoint.set("resolve")
    run_id = pipeline.api.trigger(DAG)
    pipeline.breakpoint.wait()
    pipeline.api.pause(DAG, True)
    pipeline.breakpoint.go_on()
    wait_until(lambda: pipeline.task(run_id, "resolve_model")["state"] == "success", "resolve_model does not end")
    assert [run["dag_run_id"] for run in pipeline.active()] == [run_id]
    pipeline.api.request("PATCH", f"dags/{DAG}/dagRuns/{run_id}", json={"state": "failed"})
    assert pipeline.counts(run_id, "predict") is None
    pipeline.api.pause(DAG, False)
    pipeline.finish(pipeline.api.trigger(DAG))
    outputs.scored(sent)
