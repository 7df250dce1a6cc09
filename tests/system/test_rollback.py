"""A trigger chooses another model: for one batch, or until the hold is ended."""

from __future__ import annotations

import json
import subprocess
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from mlflow import MlflowClient

from tests.support.commands import airflow
from tests.support.payments import FRAUD_FOR_LATEST, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, Sent


def test_trigger_with_model_rolls_back_one_batch(pipeline: Pipeline, outputs: Outputs) -> None:
    pipeline.settle()
    sent = pipeline.send(payments(FRAUD_FOR_LATEST, FRAUD_FOR_LATEST))
    run_id = f"rollback_{uuid.uuid4().hex}"
    airflow(pipeline.stack.env, "dags", "trigger", DAG, "-r", run_id, "-c", '{"model": "previous"}')
    pipeline.finish(run_id)
    _check_scored_by(pipeline, outputs, sent, pipeline.models.previous)
    assert pipeline.held() is None


def test_held_model_scores_until_the_hold_is_ended(pipeline: Pipeline, outputs: Outputs) -> None:
    """The hold is set even if no payment waits when it is triggered."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    pipeline.settle()
    conf = {"model": "previous", "keep": True, "reason": "false alarms since noon"}
    run_id = pipeline.finish(pipeline.api.trigger(DAG, conf))
    assert pipeline.states(run_id)["resolve_model"] == "success"
    assert pipeline.states(run_id)["predict"] == "skipped"
    hold = json.loads(pipeline.held() or "")
    assert before < datetime.fromisoformat(hold.pop("since")) <= datetime.now(UTC)
    assert hold == {
        "run_id": pipeline.models.previous,
        "asked": "previous",
        "reason": "false alarms since noon",
        "who": "admin",
        "model": None,
    }

    run_id, sent = pipeline.score(payments(FRAUD_FOR_LATEST))
    _check_scored_by(pipeline, outputs, sent, pipeline.models.previous)
    assert pipeline.counts(run_id, "resolve_model")["chosen_by"] == "hold"

    _, sent = pipeline.score(payments(FRAUD_FOR_LATEST), {"model": "latest", "keep": True})
    _check_scored_by(pipeline, outputs, sent, pipeline.models.latest)
    assert pipeline.held() is None


def test_clearing_an_old_run_changes_no_hold(pipeline: Pipeline) -> None:
    """The run's hold was ended, another run holds a model, or the run was the last to set a hold."""
    pipeline.settle()
    first = _hold(pipeline, "previous")
    assert _held_run(pipeline) == pipeline.models.previous
    end = _hold(pipeline, "latest")
    assert _held_run(pipeline) is None
    pipeline.clear(first)
    assert _held_run(pipeline) is None
    pipeline.await_log(first, "resolve_model", f"the hold is unchanged: {end}, triggered at ", attempt=2)
    # The cleared run still uses its own configuration.
    assert pipeline.counts(first, "resolve_model")["model_run_id"] == pipeline.models.previous

    second = _hold(pipeline, pipeline.models.latest)
    pipeline.clear(end)
    pipeline.clear(first, "resolve_model")
    assert _held_run(pipeline) == pipeline.models.latest

    pipeline.end_hold()
    pipeline.clear(second, "resolve_model")
    assert _held_run(pipeline) is None


def test_hold_of_an_earlier_version_is_not_set_again(pipeline: Pipeline) -> None:
    """After an upgrade there is neither hold nor note if an operator ended the hold before."""
    pipeline.settle()
    old = _hold(pipeline, "previous")
    pipeline.end_hold()
    pipeline.forget_hold_change()
    pipeline.clear(old, "resolve_model")
    assert _held_run(pipeline) is None
    pipeline.await_log(old, "resolve_model", f"the hold is unchanged: {old}, triggered at ", attempt=2)
    pipeline.await_log(old, "resolve_model", "Trigger a new run to change it", attempt=2)
    pipeline.clear(old, "resolve_model")
    assert _held_run(pipeline) is None


def test_cleared_run_sets_the_hold_that_it_failed_to_set(pipeline: Pipeline) -> None:
    pipeline.settle()
    model = f"models:/{pipeline.models.name}@for_a_while"
    run_id = _hold(pipeline, model, "failed")
    assert _held_run(pipeline) is None
    MlflowClient(pipeline.stack.mlflow_uri).set_registered_model_alias(pipeline.models.name, "for_a_while", "1")
    # Airflow 3.3.2 answers 500 when a run is cleared whose deadline is neither met nor missed.
    with pipeline.stack.database("airflow") as database:
        database.autocommit = True
        which = "(SELECT id FROM dag_run WHERE dag_id = %s AND run_id = %s)"
        database.cursor().execute(f"DELETE FROM deadline WHERE dagrun_id = {which}", (DAG, run_id))
    pipeline.clear(run_id)
    assert _held_run(pipeline) == pipeline.models.latest


def test_hold_is_complete_after_the_try_that_set_it_was_killed(pipeline: Pipeline) -> None:
    """It is killed after it set the hold and before it noted its run."""
    pipeline.settle()
    pipeline.breakpoint.set("hold set")
    run_id = pipeline.api.trigger(DAG, {"model": "previous", "keep": True})
    pipeline.breakpoint.kill()
    pipeline.finish(run_id)
    assert pipeline.task(run_id, "resolve_model")["try_number"] == 2
    assert _held_run(pipeline) == pipeline.models.previous
    pipeline.end_hold()
    pipeline.clear(run_id, "resolve_model")
    assert _held_run(pipeline) is None


def _hold(pipeline: Pipeline, model: str, state: str = "success") -> str:
    return pipeline.finish(pipeline.api.trigger(DAG, {"model": model, "keep": True}), state)


def _held_run(pipeline: Pipeline) -> str | None:
    held = pipeline.held()
    return str(json.loads(held)["run_id"]) if held else None


def test_wrong_model_is_refused_at_the_trigger(pipeline: Pipeline) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        pipeline.api.trigger(DAG, {"model": "newest"})
    assert refused.value.response.status_code == httpx.codes.BAD_REQUEST
    assert "newest" in refused.value.response.text
    with pytest.raises(subprocess.CalledProcessError) as failed:
        airflow(pipeline.stack.env, "dags", "trigger", DAG, "-c", '{"model": "newest"}')
    assert "newest" in failed.value.stderr + failed.value.stdout


def test_unknown_key_fails_plan_and_names_allowed_keys(pipeline: Pipeline) -> None:
    pipeline.settle()
    run_id = pipeline.finish(pipeline.api.trigger(DAG, {"modell": "previous"}), "failed")
    plan = pipeline.task(run_id, "plan")
    assert (plan["state"], plan["try_number"]) == ("failed", 1)
    pipeline.await_log(run_id, "plan", "unknown in the run configuration: ['modell']; allowed: model, keep, reason")


def _check_scored_by(pipeline: Pipeline, outputs: Outputs, sent: list[Sent], run_id: str) -> None:
    """Check that a model scored the payments, which only the latest one predicts to be fraud."""
    arrived = outputs.scored(sent)
    assert {message.headers["model_run_id"] for message in arrived} == {run_id}
    assert {message.payment["is_fraud"] for message in arrived} == {int(run_id == pipeline.models.latest)}
    assert all(("model_name" in message.headers) == (run_id == pipeline.models.latest) for message in arrived)
