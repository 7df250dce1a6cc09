"""Logged models of a real MLflow 3: where requests for them are refused, and where there are thousands of them."""

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
FORBIDDEN, NO_VERSION = (403, "Forbidden"), {"/version": (404, "")}
Answers = dict[str, tuple[int, str]]


@pytest.fixture
def front(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Answers], AbstractContextManager[Proxy]]:
    """Makes a proxy in front of MLflow that answers some requests itself."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return lambda answers: proxy(service_environment["MLFLOW_TRACKING_URI"], answers)


Front = Callable[[Answers], AbstractContextManager[Proxy]]


def ask(asked: str, experiment: str | None = None) -> str:
    return resolve(asked, experiment=experiment, chosen_by=DEFAULT).run_id


def run_of_mlflow_2(lab: Lab, experiment: str) -> str:
    """As a client of MLflow 2 leaves it: the model is among the artifacts, and noted in a tag."""
    run_id = lab.run(experiment, model="artifacts")
    lab.client.set_tag(run_id, "mlflow.log-model.history", json.dumps([{"artifact_path": "model"}]))
    return run_id


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_server_that_refuses_logged_models_and_has_them_does_not_give_an_older_model(
    lab: Lab, front: Front, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The run itself names its logged model."""
    name = lab.experiment()
    run_of_mlflow_2(lab, name)
    newest = lab.run(name)
    with front({"logged-models": (status, "no")}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        with pytest.raises(ModelStoreError, match=f"{status} to {SEARCH}, although run {newest} has a logged model"):
            ask("latest", name)
        with pytest.raises(ModelNotFoundError, match=f"answers {status} for the logged models"):
            ask(newest)


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_models_among_artifacts_are_found_where_logged_models_are_refused(
    lab: Lab, front: Front, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    name = lab.experiment()
    run_ids = [run_of_mlflow_2(lab, name), lab.run(name, model="artifacts")]
    with front({"logged-models": (status, "")}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        assert [ask("previous", name), ask("latest", name)] == run_ids
        assert ask(run_ids[0]) == run_ids[0]


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_server_that_refuses_logged_models_for_one_experiment_only_has_them(
    lab: Lab, front: Front, monkeypatch: pytest.MonkeyPatch, refused_first: bool
) -> None:
    """`previous` reads two experiments; the refused one may hold what is asked for."""
    older, newer = lab.experiment(), lab.experiment()
    lab.run(older)
    run_of_mlflow_2(lab, newer)
    refused = lab.client.get_experiment_by_name(newer if refused_first else older).experiment_id
    with front({f'logged-models/search{{"experiment_ids":["{refused}"]': FORBIDDEN, **NO_VERSION}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        with pytest.raises(ModelStoreError, match=f"for the experiment {refused}, but not for others"):
            ask("previous")


def test_a_registered_version_of_a_logged_model_says_where_logged_models_are_missing(
    lab: Lab, registered: Callable[..., str], front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry of MLflow 3 beside a tracking server that has no logged models, and says no version."""
    run_id = lab.run(lab.experiment())
    source = resolve(run_id, experiment=None, chosen_by=DEFAULT).model_uri
    name = registered(run_id, source)
    with front({"logged-models": FORBIDDEN, **NO_VERSION}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        for asked in (f"models:/{name}/1", source):
            with pytest.raises(ModelNotFoundError, match=r"answers 403 for the logged models .* runs:/<run id>/<name>"):
                ask(asked)


def test_a_logged_model_that_was_deleted_under_its_version_is_named(lab: Lab, registered: Callable[..., str]) -> None:
    run_id = lab.run(lab.experiment())
    source = resolve(run_id, experiment=None, chosen_by=DEFAULT).model_uri
    name = registered(run_id, source)
    lab.client.delete_logged_model(source.removeprefix("models:/"))
    with pytest.raises(ModelNotFoundError, match=f"has no logged model {source.removeprefix('models:/')}"):
        ask(f"models:/{name}/1")


def insert_runs(services: LiveStack, experiment_id: str, *, count: int, start: int, parent: str | None = None) -> None:
    """Finished runs, a second apart. Those of a parent each log a model a minute after their start."""
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


def test_latest_and_previous_go_by_the_start_of_runs_among_thousands_of_older_models(
    lab: Lab, services: LiveStack, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials of a search each have a model, and the newest 60 runs have none. `long` started first of all, and
    logged its model after the trials; `short` logged its model before them."""
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
    with front({}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        assert ask("latest", name) == newest
        searches = [request for request in server.requests if request.endswith("/search")]
        # Of runs: the newest, those of the newest 500 models, those of MLflow 2. Of logged models: those of the newest
        # runs, two pages. And of registered versions.
        assert len(searches) <= 7, searches
        server.requests.clear()
        assert ask("previous", name) == short
        searches = [request for request in server.requests if request.endswith("/search")]
        assert len(searches) <= 20, searches


def test_a_search_that_fails_for_another_reason_does_not_let_children_fill_the_pages(
    lab: Lab, services: LiveStack
) -> None:
    name = lab.experiment()
    experiment_id = lab.client.get_experiment_by_name(name).experiment_id
    parent = lab.run(name, model=None)
    insert_runs(services, experiment_id, count=60, start=1_800_000_000_000, parent=parent)
    store = ModelStore()
    with pytest.raises(ModelStoreError, match="Invalid attribute key"):
        next(store.finished_runs(experiment_id, " AND nonsense = 'x'"))
    runs, is_last = next(store.finished_runs(experiment_id))
    assert ([run.info.run_id for run in runs], is_last) == ([parent], True)
