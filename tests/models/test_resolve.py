from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from requests import RequestException

from include.errors import (
    ModelError,
    ModelNotFoundError,
    ModelRequirementsError,
    ModelStoreAccessError,
    ModelStoreError,
    RunConfigurationError,
    SettingError,
    UntrustedModelError,
)
from include.models.mlflow_client import ModelStore
from include.models.model_run import ModelRun
from include.models.resolve import DEFAULT, HOLD, RUN_CONFIGURATION, newest_run, resolve
from tests.models.conftest import Lab
from tests.support.http_proxy import proxy
from tests.support.live_stack import LiveStack

Register = Callable[..., str]


def resolve_default(requested: str, experiment: str | None = None) -> ModelRun:
    return resolve(requested, experiment=experiment, chosen_by=DEFAULT)


def test_latest_and_previous_are_the_newest_two_runs_of_newest_experiment(lab: Lab) -> None:
    lab.run(lab.experiment())
    name = lab.experiment()
    first, second = lab.run(name), lab.run(name)
    third = lab.run(name, model="artifacts")
    assert [resolve_default(requested).run_id for requested in ("latest", "previous")] == [third, second]
    assert first != second


def test_newest_run_is_none_without_experiment_or_model(lab: Lab) -> None:
    name = lab.experiment()
    assert newest_run(name) is None
    assert newest_run(f"{name} that does not exist") is None
    run = lab.run(name)
    assert newest_run(name) == run


def test_newest_is_by_start_time_not_by_order_of_creation(lab: Lab) -> None:
    name = lab.experiment()
    newer = lab.run(name, start=1_800_000_000_000)
    lab.run(name, start=1_700_000_000_000)
    assert resolve_default("latest", name).run_id == newer


def test_previous_falls_back_to_older_experiment(lab: Lab) -> None:
    before = lab.experiment()
    # Started last of all, but the experiment's creation time decides.
    older, newer = lab.run(before), lab.run(before, start=1_900_000_000_000)
    lab.experiment()
    only = lab.run(lab.experiment())
    assert [resolve_default(requested).run_id for requested in ("latest", "previous")] == [only, newer]
    assert older != newer


def test_latest_skips_runs_that_cannot_score(lab: Lab) -> None:
    name = lab.experiment()
    experiment_id = lab.client.get_experiment_by_name(name).experiment_id
    good = lab.run(name)
    lab.client.delete_run(lab.run(name))
    for status in ("RUNNING", "FAILED", "KILLED"):
        lab.run(name, status=status)
    lab.run(name, model=None)
    lab.run(name, artifact="another name")
    lab.run(name, artifact="another name", model="artifacts")
    half = lab.run(name, model=None)
    lab.client.create_logged_model(experiment_id, "model", half)
    deleted = lab.experiment()
    lab.run(deleted)
    lab.client.delete_experiment(lab.client.get_experiment_by_name(deleted).experiment_id)
    assert resolve_default("latest").run_id == good


def test_child_run_is_never_latest_or_previous(lab: Lab) -> None:
    """A hyperparameter search leaves such runs: trials that start after their parent, each with a model."""
    name = lab.experiment()
    before, parent = lab.run(name), lab.run(name)
    for model in ("logged", "artifacts"):
        lab.client.set_tag(trial := lab.run(name, model=model), "mlflow.parentRunId", parent)
    assert [resolve_default(requested, name).run_id for requested in ("latest", "previous")] == [parent, before]
    assert newest_run(name) == parent
    # A child run can be requested by its id.
    assert resolve_default(trial).run_id == trial


def test_latest_needs_few_requests_in_a_large_experiment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, service_environment: dict[str, str]
) -> None:
    name = lab.experiment()
    latest = lab.run(name)
    noted = lab.run(name, model="artifacts")
    # A client of MLflow 2 sets this tag.
    history = json.dumps([{"run_id": noted, "artifact_path": "model"}])
    lab.client.set_tag(noted, "mlflow.log-model.history", history)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: lab.run(name, model=None), range(300)))
    with proxy(service_environment["MLFLOW_TRACKING_URI"]) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        assert resolve_default("latest", name).run_id == noted
        searches = [request for request in front.requests if request.endswith("/search")]
        assert len(searches) <= 6, searches
        assert len(front.requests) <= 20, front.requests
        front.requests.clear()
        assert resolve_default("previous", name).run_id == latest
        assert len(front.requests) <= 20, front.requests


def test_models_among_artifacts_are_searched_in_newest_ten_runs(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    name = lab.experiment()
    older, copied = lab.run(name), lab.run(name, model="artifacts")
    for _ in range(9):
        lab.run(name, model=None)
    assert resolve_default("latest", name).run_id == copied
    lab.run(name, model=None)
    with caplog.at_level("INFO"):
        assert resolve_default("latest", name).run_id == older
    assert "artifacts of 1 runs without a logged model were not searched" in caplog.text
    assert resolve_default(copied).run_id == copied


def test_error_names_models_of_other_names(lab: Lab) -> None:
    name = lab.experiment()
    logged, copied = lab.run(name, artifact="xgb"), lab.run(name, artifact="my model", model="artifacts")
    for run_id, other in ((logged, "xgb"), (copied, "my model")):
        message = f"has no model named `model`; it has '{other}': request runs:/{run_id}/{other}"
        with pytest.raises(ModelNotFoundError, match=message):
            resolve_default(run_id)
    with pytest.raises(ModelNotFoundError, match=f"other names than 'model': 'xgb'; log .*runs:/{logged}/xgb"):
        resolve_default("latest", name)
    with pytest.raises(ModelNotFoundError, match="has no model named `lgbm`; it has 'xgb'"):
        resolve_default(f"runs:/{logged}/lgbm")


def test_model_is_found_by_name_or_logged_model_id(lab: Lab) -> None:
    run_id = lab.run(lab.experiment(), artifact="xgb")
    copied = lab.run(lab.experiment(), artifact="my model", model="artifacts")
    by_name = resolve_default(f"runs:/{run_id}/xgb")
    assert by_name.run_id == run_id
    assert resolve_default(by_name.model_uri) == replace(by_name, asked=by_name.model_uri)
    assert resolve_default(f"runs:/{copied}/my model").model_uri.endswith(f"{copied}/artifacts/my model")
    # A hold requests the same model again, which the run id alone would not find.
    assert by_name.pinned == f"runs:/{run_id}/xgb"
    assert resolve_default(by_name.model_uri).pinned == by_name.model_uri
    with pytest.raises(ModelNotFoundError, match="has no logged model m-0000"):
        resolve_default(f"models:/m-{'0' * 32}")
    lab.client.delete_run(run_id)
    with pytest.raises(ModelNotFoundError, match="is deleted"):
        resolve_default(by_name.model_uri)


def test_experiment_limits_latest_and_previous(lab: Lab) -> None:
    mine, other = lab.experiment(), lab.experiment()
    first, second = lab.run(mine), lab.run(mine)
    lab.run(other)
    assert [resolve_default(requested, mine).run_id for requested in ("latest", "previous")] == [second, first]


def test_resolved_run_is_complete_and_is_restored_from_its_dict(lab: Lab, service_environment: dict[str, str]) -> None:
    name = lab.experiment()
    run_id = lab.run(name)
    run = resolve(run_id, experiment=None, chosen_by=RUN_CONFIGURATION, reason="alarms")
    experiment_id = lab.client.get_run(run_id).info.experiment_id
    assert run == ModelRun(
        run_id=run_id,
        model_uri=run.model_uri,
        experiment=name,
        name=None,
        version=None,
        asked=run_id,
        chosen_by="run configuration",
        reason="alarms",
        url=f"{service_environment['MLFLOW_TRACKING_URI']}/#/experiments/{experiment_id}/runs/{run_id}",
        threshold=None,
    )
    assert run.model_uri.startswith("models:/m-")
    assert ModelRun.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_alias_version_and_run_id_find_the_same_registered_run(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    name = registered(run_id, resolve_default(run_id).model_uri)
    second = lab.run(experiment)
    registered(second, resolve_default(second).model_uri, name)
    lab.client.set_registered_model_alias(name, "champion", "1")
    runs = [resolve_default(requested) for requested in (f"models:/{name}@champion", f"models:/{name}/1", run_id)]
    assert {(run.run_id, run.name, run.version) for run in runs} == {(run_id, name, "1")}
    assert len({run.model_uri for run in runs}) == 1
    assert runs[0].title == f"{name} version 1"


def test_registered_version_of_artifacts_is_found(lab: Lab, registered: Register) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    name = registered(run_id, f"{lab.client.get_run(run_id).info.artifact_uri}/model")
    assert resolve_default(f"models:/{name}/1").run_id == run_id
    assert resolve_default(run_id).name == name


def test_registered_model_of_another_name_has_its_own_cache_entry(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    other = lab.log(lab.client.get_run(run_id).info.experiment_id, run_id, "calibrated")
    name = registered(run_id, other)
    found, plain = resolve_default(f"models:/{name}/1"), resolve_default(run_id)
    assert found.model_uri == other
    assert (found.run_id, found.name) == (run_id, name)
    assert plain.name is None
    assert found.cache_key != plain.cache_key


def test_error_for_unknown_name_lists_existing_names(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    name = registered(run_id, resolve_default(run_id).model_uri)
    lab.client.set_registered_model_alias(name, "champion", "1")
    for requested, experiment_name, message in (
        (f"models:/{name}@challenger", None, "no alias 'challenger'; it has: champion"),
        (f"models:/{name}/7", None, "no version 7; its newest is 1"),
        ("models:/nobodys@champion", None, "no registered model 'nobodys'"),
        ("models:/nobodys/1", None, "no registered model 'nobodys'"),
        ("0" * 32, None, "has no run 0000"),
        ("latest", "nobodys", f"FRAUD_EXPERIMENT: experiment 'nobodys' does not exist .* it has: .*{experiment}"),
    ):
        with pytest.raises(ModelNotFoundError, match=message):
            resolve_default(requested, experiment_name)


def test_error_says_why_a_run_cannot_score(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    deleted = lab.run(experiment)
    name = registered(deleted, resolve_default(deleted).model_uri)
    lab.client.delete_run(deleted)
    for requested, message in (
        (deleted, f"{deleted} is deleted"),
        (f"models:/{name}/1", f"{deleted} is deleted"),
        (lab.run(experiment, status="RUNNING"), "is RUNNING: only a FINISHED"),
        (lab.run(experiment, status="FAILED"), "is FAILED"),
        (lab.run(experiment, model=None), "has no model named `model`"),
    ):
        with pytest.raises(ModelNotFoundError, match=message):
            resolve_default(requested)


def test_error_for_deleted_held_run_says_how_to_end_hold(lab: Lab) -> None:
    run_id = lab.run(lab.experiment())
    lab.client.delete_run(run_id)
    with pytest.raises(ModelNotFoundError, match=r'is deleted.*fraud_model_hold.*"model": "latest", "keep": true'):
        resolve(run_id, experiment=None, chosen_by=HOLD)


def test_run_of_deleted_experiment_is_refused(lab: Lab) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    lab.client.delete_experiment(lab.client.get_experiment_by_name(experiment).experiment_id)
    with pytest.raises(ModelNotFoundError, match="deleted"):
        resolve_default(run_id)
    with pytest.raises(ModelNotFoundError, match="is deleted in MLflow"):
        resolve_default("latest", experiment)


def test_errors_tell_missing_previous_from_missing_latest(lab: Lab) -> None:
    experiment = lab.experiment()
    lab.run(experiment, model=None)
    for requested in ("latest", "previous"):
        with pytest.raises(ModelNotFoundError, match="no finished run with a model in experiment 'payments"):
            resolve_default(requested, experiment)
    lab.run(experiment)
    with pytest.raises(ModelNotFoundError, match="no previous model: only one finished run"):
        resolve_default("previous", experiment)


# MLflow itself raises these warnings when it opens a database without a server.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_error_says_that_mlflow_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ModelNotFoundError, match="no finished run with a model in any of the 1 experiments"):
        resolve_default("latest")
    MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").delete_experiment("0")
    with pytest.raises(ModelNotFoundError, match="has no experiment: train a model first"):
        resolve_default("previous")


def small_files(seed_folder: Path, folder: Path, **files: str) -> Path:
    """Write only the small files of a model to `folder`, some of them with the given content."""
    folder.mkdir()
    for name in ("MLmodel", "requirements.txt"):
        (folder / name).write_text((seed_folder / name).read_text())
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_missing_requirement_fails_before_the_download(lab: Lab, seed_folder: Path, tmp_path: Path) -> None:
    files = small_files(seed_folder, tmp_path / "m", requirements_txt="some-absent-package==1.2\nscikit-learn==0.1\n")
    run_id = lab.run(lab.experiment(), files=files)
    with pytest.raises(ModelRequirementsError, match=r"some-absent-package \(wanted ==1.2, found none\).*scikit-learn"):
        resolve_default(run_id)
    with pytest.raises(ModelRequirementsError, match=f"set FRAUD_UNCHECKED_REQUIREMENTS={run_id}"):
        resolve(run_id, experiment=None, chosen_by=DEFAULT, unchecked_requirements=["0" * 32])
    assert resolve(run_id, experiment=None, chosen_by=DEFAULT, unchecked_requirements=[run_id]).run_id == run_id


def test_conda_file_is_read_without_requirements_file(lab: Lab, seed_folder: Path, tmp_path: Path) -> None:
    files = small_files(seed_folder, tmp_path / "m", conda_yaml="dependencies: [{pip: [some-absent-package]}]")
    (files / "requirements.txt").unlink()
    run_id = lab.run(lab.experiment(), files=files, model="artifacts")
    with pytest.raises(ModelRequirementsError, match="some-absent-package"):
        resolve_default(run_id)


def test_threshold_is_read_from_metadata_or_run_tag(lab: Lab, seed_folder: Path, tmp_path: Path) -> None:
    experiment = lab.experiment()
    text = yaml.safe_load((seed_folder / "MLmodel").read_text())
    files = small_files(seed_folder, tmp_path / "m")
    (files / "MLmodel").write_text(yaml.safe_dump({**text, "metadata": {"threshold": 0.3}}))
    assert resolve_default(lab.run(experiment, files=files)).threshold == 0.3
    by_tag = lab.run(experiment)
    lab.client.set_tag(by_tag, "fraud_threshold", "0.2")
    assert resolve_default(by_tag).threshold == 0.2
    lab.client.set_tag(by_tag, "fraud_threshold", "high")
    with pytest.raises(ModelError, match=f"threshold 'high' in the tag fraud_threshold of run {by_tag}"):
        resolve_default(by_tag)


@pytest.mark.parametrize("value", ["auto", "0.0", "0.3"])
def test_parameters_and_other_tags_are_not_the_threshold(lab: Lab, value: str) -> None:
    run_id = lab.run(lab.experiment())
    lab.client.log_param(run_id, "threshold", value)
    lab.client.set_tag(run_id, "threshold", value)
    assert resolve_default(run_id).threshold is None


def test_missing_mlmodel_file_is_an_error(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no model")
    run_id = lab.run(lab.experiment(), files=tmp_path)
    with pytest.raises(ModelNotFoundError, match="MLmodel file is gone"):
        resolve_default(run_id)


@pytest.fixture
def foreign_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that must not receive MLflow's password, and the requests that it received."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.path} {self.headers['Authorization']}")
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()


def move_files(services: LiveStack, run_id: str, location: str) -> None:
    """Write another location of the run's files into MLflow's database.

    The server of MLflow 3.17 refuses such locations unless it is configured to accept them; earlier ones accept any.
    """
    with services.database("mlflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET artifact_uri = %s WHERE run_uuid = %s", (location, run_id))
        assert cursor.rowcount == 1
        cursor.execute("UPDATE logged_models SET artifact_location = %s WHERE source_run_id = %s", (location, run_id))


@pytest.mark.parametrize(
    "place", ["http://{}/api/2.0/mlflow-artifacts/artifacts/models", "mlflow-artifacts://{}/models"]
)
@pytest.mark.parametrize("model", ["logged", "artifacts"])
def test_foreign_server_receives_no_request_for_a_model(
    lab: Lab, services: LiveStack, foreign_server: tuple[str, list[str]], place: str, model: str
) -> None:
    address, requests = foreign_server
    elsewhere, name = place.format(address), lab.experiment()
    run_id = lab.run(name, model=model)
    move_files(services, run_id, elsewhere)
    with pytest.raises(UntrustedModelError, match=f"stored at {elsewhere}.*loaded from MLflow at http"):
        resolve_default(run_id)
    # Without a logged model, artifacts in other places are not searched.
    with pytest.raises(UntrustedModelError if model == "logged" else ModelNotFoundError):
        resolve_default("latest", name)
    assert requests == []
    # MLflow's own function sends a request there, with the login.
    with pytest.raises((MlflowException, RequestException)):
        download_artifacts(artifact_uri=f"{elsewhere}/MLmodel")
    assert requests
    assert "Basic" in requests[0]


@pytest.mark.parametrize(
    ("server", "uri", "is_trusted"),
    [
        ("https://mlflow.example.com", "mlflow-artifacts:/1/m", True),
        ("https://ann:secret@mlflow.example.com", "mlflow-artifacts://mlflow.example.com/1/m", True),
        ("https://mlflow.example.com", "mlflow-artifacts://mlflow.example.org/1/m", False),
        ("https://mlflow.example.com", "s3://bucket/m", True),
        ("https://mlflow.example.com", "https://mlflow.example.com/m", False),
        ("https://mlflow.example.com", "ftp://ann@example.org/m", False),
        ("https://mlflow.example.com", "abfss://models@storage.example.org/m", False),
        ("https://mlflow.example.com", "file:///var/models/m", False),
        ("https://mlflow.example.com", "/var/models/m", False),
        ("https://mlflow.example.com", "models:/of/another/registry", False),
        # A server on this machine has the same paths.
        ("http://127.0.0.1:5000", "/var/models/m", True),
        ("http://localhost:5000", "file:///var/models/m", True),
    ],
)
def test_models_are_loaded_from_trusted_locations_only(
    monkeypatch: pytest.MonkeyPatch, server: str, uri: str, is_trusted: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    store = ModelStore()
    if is_trusted:
        store._artifact_uris.require_trusted("it", uri)
        return
    with pytest.raises(UntrustedModelError) as caught:
        store._artifact_uris.require_trusted("it", uri)
    assert "secret" not in str(caught.value)


def test_latest_skips_run_whose_bucket_is_gone(lab: Lab, services: LiveStack) -> None:
    """Scoring goes on after another team has deleted its bucket."""
    name = lab.experiment()
    run_id = lab.run(name)
    for model in ("artifacts", None):
        move_files(services, lab.run(name, model=model), f"s3://gone-{uuid.uuid4().hex}/artifacts")
    assert resolve_default("latest", name).run_id == run_id


def test_copied_version_resolves_to_the_original_files(lab: Lab, registered: Register) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    name = registered(run_id, f"runs:/{run_id}/model")
    copied = lab.client.copy_model_version(f"models:/{name}/1", f"{name} copied")
    try:
        assert resolve_default(f"models:/{copied.name}/{copied.version}").run_id == run_id
        assert ModelStore()._artifact_uris.resolve(f"models:/{copied.name}/1").startswith("s3://mlflow/")
    finally:
        lab.client.delete_registered_model(copied.name)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_error_for_stopped_mlflow_is_quick_and_hides_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{closed_port()}")
    started = time.monotonic()
    for requested in ("latest", "0" * 32, "models:/fraud@champion"):
        with pytest.raises(ModelStoreError, match=r"MLflow at http://127.0.0.1:") as caught:
            resolve_default(requested)
        assert "secret" not in str(caught.value)
        assert not caught.value.permanent
    assert time.monotonic() - started < 45


def test_error_for_stopped_artifact_store_is_not_a_missing_model(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = lab.experiment()
    logged, artifacts = lab.run(experiment), lab.run(experiment, model="artifacts")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    for run_id in (logged, artifacts):
        with pytest.raises(ModelStoreError):
            resolve_default(run_id)


def test_error_for_wrong_artifact_store_keys_is_permanent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    # MLflow and boto3 cache a client per address, with the keys that it was created with.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL_S3"].replace("127.0.0.1", "localhost"))
    with pytest.raises(ModelStoreAccessError, match="check the keys in the connection aws_default") as caught:
        resolve_default(run_id)
    assert caught.value.permanent


def test_error_for_invalid_address_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://ann:secret@nowhere")
    with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI=nothing://nowhere") as caught:
        resolve_default("latest")
    assert "secret" not in str(caught.value)


def test_error_for_missing_address_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI is not set"):
        resolve_default("latest")


@pytest.mark.parametrize(
    ("chosen_by", "error", "message"),
    [
        (DEFAULT, SettingError, "FRAUD_MODEL: 'newest' is not a model; allowed: latest"),
        (HOLD, SettingError, "fraud_model_hold: 'newest'"),
        (RUN_CONFIGURATION, RunConfigurationError, "model='newest' is not allowed; allowed: latest"),
    ],
)
def test_error_for_unknown_model_names_its_source(chosen_by: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve("newest", experiment=None, chosen_by=chosen_by)
