"""Tests on logged models of a real MLflow 3: a server that rejects requests for them, and thousands of models."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from mlflow.entities import LoggedModelStatus

from include.errors import ModelNotFoundError, ModelStoreError
from include.models.mlflow_client import ModelStore
from include.models.resolve import DEFAULT, resolve
from tests.models.conftest import Lab
from tests.support.http_proxy import Proxy, proxy
from tests.support.live_stack import LiveStack

DAY = 24 * 3600 * 1000
SEARCH = "POST /api/2.0/mlflow/logged-models/search"
FORBIDDEN, WITHOUT_VERSION = (403, "Forbidden"), {"/version": (404, "")}
Answers = dict[str, tuple[int, str]]


@pytest.fixture
def mlflow_proxy(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Answers], AbstractContextManager[Proxy]]:
    """Return a function that starts a proxy in front of MLflow, which answers some requests itself."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return lambda answers: proxy(service_environment["MLFLOW_TRACKING_URI"], answers)


StartProxy = Callable[[Answers], AbstractContextManager[Proxy]]


def resolve_run_id(requested: str, experiment: str | None = None) -> str:
    return resolve(requested, experiment=experiment, chosen_by=DEFAULT).run_id


def run_of_mlflow_2(lab: Lab, experiment: str) -> str:
    """Create a run as a client of MLflow 2 does: the model is among the artifacts, and recorded in a tag."""
    run_id = lab.run(experiment, model="artifacts")
    lab.client.set_tag(run_id, "mlflow.log-model.history", json.dumps([{"artifact_path": "model"}]))
    return run_id


@pytest.mark.parametrize("status", [403, 404, 405])
def test_server_that_hides_a_runs_logged_model_gives_no_older_model(
    lab: Lab, mlflow_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The run's outputs name its logged model."""
    name = lab.experiment()
    run_of_mlflow_2(lab, name)
    newest = lab.run(name)
    with mlflow_proxy({"logged-models": (status, "no")}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        with pytest.raises(ModelStoreError, match=f"{status} to {SEARCH}, although run {newest} has a logged model"):
            resolve_run_id("latest", name)
        with pytest.raises(ModelNotFoundError, match=f"answers {status} for the logged models"):
            resolve_run_id(newest)


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_models_among_artifacts_are_found_if_logged_models_are_rejected(
    lab: Lab, mlflow_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    name = lab.experiment()
    run_ids = [run_of_mlflow_2(lab, name), lab.run(name, model="artifacts")]
    with mlflow_proxy({"logged-models": (status, "")}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        assert [resolve_run_id("previous", name), resolve_run_id("latest", name)] == run_ids
        assert resolve_run_id(run_ids[0]) == run_ids[0]


@pytest.mark.parametrize("rejected_first", [True, False])
def test_rejection_for_one_experiment_only_raises_model_store_error(
    lab: Lab, mlflow_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, rejected_first: bool
) -> None:
    """`previous` reads two experiments, and the rejected one may have the requested model."""
    older, newer = lab.experiment(), lab.experiment()
    lab.run(older)
    run_of_mlflow_2(lab, newer)
    rejected = lab.client.get_experiment_by_name(newer if rejected_first else older).experiment_id
    with mlflow_proxy(
        {f'logged-models/search{{"experiment_ids":["{rejected}"]': FORBIDDEN, **WITHOUT_VERSION}
    ) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        with pytest.raises(ModelStoreError, match=f"for the experiment {rejected}, but not for others"):
            resolve_run_id("previous")


def test_error_for_logged_model_by_id_says_that_the_server_has_none(
    lab: Lab, registered: Callable[..., str], mlflow_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is of MLflow 3; the tracking server has no logged models and does not tell its version."""
    run_id = lab.run(lab.experiment())
    source = resolve(run_id, experiment=None, chosen_by=DEFAULT).model_uri
    name = registered(run_id, source)
    with mlflow_proxy({"logged-models": FORBIDDEN, **WITHOUT_VERSION}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        for requested in (f"models:/{name}/1", source):
            with pytest.raises(ModelNotFoundError, match=r"answers 403 for the logged models .* runs:/<run id>/<name>"):
                resolve_run_id(requested)


def test_error_names_the_deleted_logged_model_of_a_registered_version(lab: Lab, registered: Callable[..., str]) -> None:
    run_id = lab.run(lab.experiment())
    source = resolve(run_id, experiment=None, chosen_by=DEFAULT).model_uri
    name = registered(run_id, source)
    lab.client.delete_logged_model(source.removeprefix("models:/"))
    with pytest.raises(ModelNotFoundError, match=f"has no logged model {source.removeprefix('models:/')}"):
        resolve_run_id(f"models:/{name}/1")


def insert_runs(services: LiveStack, experiment_id: str, *, count: int, start: int, parent: str | None = None) -> None:
    """Insert finished runs into MLflow's database, a second apart.

    `start` is in milliseconds since 1970. Runs with a `parent` each have a model, created a minute after their start.
    """
    with services.database("mlflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT artifact_location FROM experiments WHERE experiment_id = %s", (experiment_id,))
        (location,) = cursor.fetchone()
        values = {
            "id": experiment_id,
            "count": count,
            "start": start,
            "parent": parent,
            "location": location,
            "ready": LoggedModelStatus.READY.to_int(),
        }
        cursor.execute(
            """
            CREATE TEMPORARY TABLE made ON COMMIT DROP AS
            SELECT md5(%(id)s || ' ' || %(start)s || ' ' || n) AS run, %(start)s + n * 1000 AS at
            FROM generate_series(1, %(count)s) AS n;
            INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage,
                artifact_uri, experiment_id)
            SELECT run, 'trial', 'LOCAL', 'ann', 'FINISHED', at, at + 1, 'active',
                %(location)s || '/' || run || '/artifacts', %(id)s::integer FROM made
            """,
            values,
        )
        if parent is not None:
            cursor.execute(
                """
                INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.parentRunId', %(parent)s, run FROM made;
                INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
                    last_updated_timestamp_ms, status, lifecycle_stage, source_run_id)
                SELECT 'm-' || run, %(id)s::integer, 'model', %(location)s || '/models/m-' || run || '/artifacts',
                    at + 60000, at + 60000, %(ready)s, 'active', run FROM made
                """,
                values,
            )


def test_latest_and_previous_go_by_start_of_run_among_thousands_of_models(
    lab: Lab, services: LiveStack, mlflow_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 3,500 trials has a model, and the newest 60 runs have none.

    The run `long` started first, and logged its model after the trials; the run `short` logged its model before them.
    """
    name = lab.experiment()
    experiment_id = lab.client.get_experiment_by_name(name).experiment_id
    began = 1_700_000_000_000

    def run(start: int, logged: int) -> str:
        run_id = lab.run(name, start=began + start)
        with services.database("mlflow") as connection, connection, connection.cursor() as cursor:
            statement = "UPDATE logged_models SET creation_timestamp_ms = %s WHERE source_run_id = %s"
            cursor.execute(statement, (began + logged, run_id))
        return run_id

    long, short, newest = run(0, 10 * DAY), run(DAY, DAY + 60_000), run(20 * DAY, 20 * DAY + 60_000)
    insert_runs(services, experiment_id, count=3_500, start=began + 2 * DAY, parent=long)
    insert_runs(services, experiment_id, count=60, start=began + 21 * DAY)
    with mlflow_proxy({}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        assert resolve_run_id("latest", name) == newest
        searches = [request for request in server.requests if request.endswith("/search")]
        # Three searches for runs (the newest, those of the newest 500 models, those of MLflow 2), three for logged
        # models (those of the newest runs, and two pages), one for registered versions.
        assert len(searches) <= 7, searches
        server.requests.clear()
        assert resolve_run_id("previous", name) == short
        searches = [request for request in server.requests if request.endswith("/search")]
        assert len(searches) <= 20, searches


def test_failed_search_does_not_end_the_filter_on_child_runs(lab: Lab, services: LiveStack) -> None:
    name = lab.experiment()
    experiment_id = lab.client.get_experiment_by_name(name).experiment_id
    parent = lab.run(name, model=None)
    insert_runs(services, experiment_id, count=60, start=1_800_000_000_000, parent=parent)
    store = ModelStore()
    with pytest.raises(ModelStoreError, match="Invalid attribute key"):
        next(store.finished_runs(experiment_id, " AND nonsense = 'x'"))
    runs, is_last = next(store.finished_runs(experiment_id))
    assert ([run.info.run_id for run in runs], is_last) == ([parent], True)
