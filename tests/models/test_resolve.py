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


def ask(asked: str, experiment: str | None = None) -> ModelRun:
    return resolve(asked, experiment=experiment, chosen_by=DEFAULT)


def test_latest_and_previous_are_the_newest_two_of_the_newest_experiment(lab: Lab) -> None:
    lab.run(lab.experiment())
    name = lab.experiment()
    first, second = lab.run(name), lab.run(name)
    third = lab.run(name, model="artifacts")
    assert [ask(asked).run_id for asked in ("latest", "previous")] == [third, second]
    assert first != second


def test_whether_there_is_one_can_be_asked(lab: Lab) -> None:
    name = lab.experiment()
    assert newest_run(name) is None
    assert newest_run(f"{name} that nobody made") is None
    run = lab.run(name)
    assert newest_run(name) == run


def test_newest_is_by_start_not_by_the_order_of_making(lab: Lab) -> None:
    name = lab.experiment()
    newer = lab.run(name, start=1_800_000_000_000)
    lab.run(name, start=1_700_000_000_000)
    assert ask("latest", name).run_id == newer


def test_where_the_newest_experiment_has_one_previous_is_the_newest_of_the_one_before(lab: Lab) -> None:
    before = lab.experiment()
    # Started last of all: experiments count by their own age.
    older, newer = lab.run(before), lab.run(before, start=1_900_000_000_000)
    lab.experiment()
    only = lab.run(lab.experiment())
    assert [ask(asked).run_id for asked in ("latest", "previous")] == [only, newer]
    assert older != newer


def test_what_cannot_score_does_not_count(lab: Lab) -> None:
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
    assert ask("latest").run_id == good


def test_a_child_run_is_never_latest_or_previous(lab: Lab) -> None:
    """As a hyperparameter search leaves them: trials that started after their parent, each with a model."""
    name = lab.experiment()
    before, parent = lab.run(name), lab.run(name)
    for model in ("logged", "artifacts"):
        lab.client.set_tag(trial := lab.run(name, model=model), "mlflow.parentRunId", parent)
    assert [ask(asked, name).run_id for asked in ("latest", "previous")] == [parent, before]
    assert newest_run(name) == parent
    # Who names it means it.
    assert ask(trial).run_id == trial


def test_latest_costs_a_few_requests_whatever_the_experiment_holds(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, service_environment: dict[str, str]
) -> None:
    name = lab.experiment()
    latest = lab.run(name)
    noted = lab.run(name, model="artifacts")
    # As a client of MLflow 2 does.
    history = json.dumps([{"run_id": noted, "artifact_path": "model"}])
    lab.client.set_tag(noted, "mlflow.log-model.history", history)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: lab.run(name, model=None), range(300)))
    with proxy(service_environment["MLFLOW_TRACKING_URI"]) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        assert ask("latest", name).run_id == noted
        searches = [request for request in front.requests if request.endswith("/search")]
        assert len(searches) <= 6, searches
        assert len(front.requests) <= 20, front.requests
        front.requests.clear()
        assert ask("previous", name).run_id == latest
        assert len(front.requests) <= 20, front.requests


def test_a_model_that_was_only_copied_is_looked_for_in_the_newest_ten(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    name = lab.experiment()
    older, copied = lab.run(name), lab.run(name, model="artifacts")
    for _ in range(9):
        lab.run(name, model=None)
    assert ask("latest", name).run_id == copied
    lab.run(name, model=None)
    with caplog.at_level("INFO"):
        assert ask("latest", name).run_id == older
    assert "artifacts of 1 runs without a logged model were not searched" in caplog.text
    assert ask(copied).run_id == copied


def test_a_model_of_another_name_is_named_with_what_to_do(lab: Lab) -> None:
    name = lab.experiment()
    logged, copied = lab.run(name, artifact="xgb"), lab.run(name, artifact="my model", model="artifacts")
    for run_id, other in ((logged, "xgb"), (copied, "my model")):
        says = f"nothing is logged under the name `model`, but under '{other}': ask for runs:/{run_id}/{other}"
        with pytest.raises(ModelNotFoundError, match=says):
            ask(run_id)
    with pytest.raises(ModelNotFoundError, match=f"other names than 'model': 'xgb'; log .*runs:/{logged}/xgb"):
        ask("latest", name)
    with pytest.raises(ModelNotFoundError, match="under the name `lgbm`, but under 'xgb'"):
        ask(f"runs:/{logged}/lgbm")


def test_a_model_can_be_asked_for_by_its_name_or_its_own_id(lab: Lab) -> None:
    run_id = lab.run(lab.experiment(), artifact="xgb")
    copied = lab.run(lab.experiment(), artifact="my model", model="artifacts")
    by_name = ask(f"runs:/{run_id}/xgb")
    assert by_name.run_id == run_id
    assert ask(by_name.model_uri) == replace(by_name, asked=by_name.model_uri)
    assert ask(f"runs:/{copied}/my model").model_uri.endswith(f"{copied}/artifacts/my model")
    # A hold asks for the very same again; the run id alone would not find it.
    assert by_name.pinned == f"runs:/{run_id}/xgb"
    assert ask(by_name.model_uri).pinned == by_name.model_uri
    with pytest.raises(ModelNotFoundError, match="has no logged model m-0000"):
        ask(f"models:/m-{'0' * 32}")
    lab.client.delete_run(run_id)
    with pytest.raises(ModelNotFoundError, match="is deleted"):
        ask(by_name.model_uri)


def test_an_experiment_narrows_the_choice(lab: Lab) -> None:
    mine, other = lab.experiment(), lab.experiment()
    first, second = lab.run(mine), lab.run(mine)
    lab.run(other)
    assert [ask(asked, mine).run_id for asked in ("latest", "previous")] == [second, first]


def test_a_resolved_run_says_everything_and_survives_its_dict(lab: Lab, service_environment: dict[str, str]) -> None:
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


def test_by_alias_version_or_run_it_is_the_same_run_with_its_registered_name(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    name = registered(run_id, ask(run_id).model_uri)
    second = lab.run(experiment)
    registered(second, ask(second).model_uri, name)
    lab.client.set_registered_model_alias(name, "champion", "1")
    runs = [ask(asked) for asked in (f"models:/{name}@champion", f"models:/{name}/1", run_id)]
    assert {(run.run_id, run.name, run.version) for run in runs} == {(run_id, name, "1")}
    assert len({run.model_uri for run in runs}) == 1
    assert runs[0].title == f"{name} version 1"


def test_a_version_of_artifacts_is_found_too(lab: Lab, registered: Register) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    name = registered(run_id, f"{lab.client.get_run(run_id).info.artifact_uri}/model")
    assert ask(f"models:/{name}/1").run_id == run_id
    assert ask(run_id).name == name


def test_a_registered_model_of_another_name_is_another_cache_entry(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    other = lab.log(lab.client.get_run(run_id).info.experiment_id, run_id, "calibrated")
    name = registered(run_id, other)
    found, plain = ask(f"models:/{name}/1"), ask(run_id)
    assert found.model_uri == other
    assert (found.run_id, found.name) == (run_id, name)
    assert plain.name is None
    assert found.cache_key != plain.cache_key


def test_unknown_names_are_told_with_what_there_is(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    name = registered(run_id, ask(run_id).model_uri)
    lab.client.set_registered_model_alias(name, "champion", "1")
    for asked, narrowed, says in (
        (f"models:/{name}@challenger", None, "no alias 'challenger'; it has: champion"),
        (f"models:/{name}/7", None, "no version 7; its newest is 1"),
        ("models:/nobodys@champion", None, "no registered model 'nobodys'"),
        ("models:/nobodys/1", None, "no registered model 'nobodys'"),
        ("0" * 32, None, "has no run 0000"),
        ("latest", "nobodys", f"FRAUD_EXPERIMENT: experiment 'nobodys' does not exist .* it has: .*{experiment}"),
    ):
        with pytest.raises(ModelNotFoundError, match=says):
            ask(asked, narrowed)


def test_runs_that_cannot_score_each_have_their_reason(lab: Lab, registered: Register) -> None:
    experiment = lab.experiment()
    deleted = lab.run(experiment)
    name = registered(deleted, ask(deleted).model_uri)
    lab.client.delete_run(deleted)
    for asked, says in (
        (deleted, f"{deleted} is deleted"),
        (f"models:/{name}/1", f"{deleted} is deleted"),
        (lab.run(experiment, status="RUNNING"), "is RUNNING: only a FINISHED"),
        (lab.run(experiment, status="FAILED"), "is FAILED"),
        (lab.run(experiment, model=None), "has no model: nothing is logged under the name `model`"),
    ):
        with pytest.raises(ModelNotFoundError, match=says):
            ask(asked)


def test_a_held_run_that_is_gone_says_how_to_end_the_hold(lab: Lab) -> None:
    run_id = lab.run(lab.experiment())
    lab.client.delete_run(run_id)
    with pytest.raises(ModelNotFoundError, match=r'is deleted.*fraud_model_hold.*"model": "latest", "keep": true'):
        resolve(run_id, experiment=None, chosen_by=HOLD)


def test_a_run_of_a_deleted_experiment_is_refused(lab: Lab) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment)
    lab.client.delete_experiment(lab.client.get_experiment_by_name(experiment).experiment_id)
    with pytest.raises(ModelNotFoundError, match="deleted"):
        ask(run_id)
    with pytest.raises(ModelNotFoundError, match="is deleted in MLflow"):
        ask("latest", experiment)


def test_previous_of_one_run_and_latest_of_none_are_different_errors(lab: Lab) -> None:
    experiment = lab.experiment()
    lab.run(experiment, model=None)
    for asked in ("latest", "previous"):
        with pytest.raises(ModelNotFoundError, match="no finished run with a model in experiment 'payments"):
            ask(asked, experiment)
    lab.run(experiment)
    with pytest.raises(ModelNotFoundError, match="no previous model: only one finished run"):
        ask("previous", experiment)


# MLflow itself, where it opens a database without a server.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_empty_mlflow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ModelNotFoundError, match="no finished run with a model in any of the 1 experiments"):
        ask("latest")
    MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").delete_experiment("0")
    with pytest.raises(ModelNotFoundError, match="has no experiment: train a model first"):
        ask("previous")


def changed(seed_folder: Path, folder: Path, **files: str) -> Path:
    """A model's small files only, some of them with another content."""
    folder.mkdir()
    for name in ("MLmodel", "requirements.txt"):
        (folder / name).write_text((seed_folder / name).read_text())
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_what_is_not_installed_is_known_at_once(lab: Lab, seed_folder: Path, tmp_path: Path) -> None:
    files = changed(seed_folder, tmp_path / "m", requirements_txt="some-absent-package==1.2\nscikit-learn==0.1\n")
    run_id = lab.run(lab.experiment(), files=files)
    with pytest.raises(ModelRequirementsError, match=r"some-absent-package \(wanted ==1.2, found none\).*scikit-learn"):
        ask(run_id)
    with pytest.raises(ModelRequirementsError, match=f"set FRAUD_UNCHECKED_REQUIREMENTS={run_id}"):
        resolve(run_id, experiment=None, chosen_by=DEFAULT, unchecked=["0" * 32])
    assert resolve(run_id, experiment=None, chosen_by=DEFAULT, unchecked=[run_id]).run_id == run_id


def test_without_requirements_the_conda_file_is_read(lab: Lab, seed_folder: Path, tmp_path: Path) -> None:
    files = changed(seed_folder, tmp_path / "m", conda_yaml="dependencies: [{pip: [some-absent-package]}]")
    (files / "requirements.txt").unlink()
    run_id = lab.run(lab.experiment(), files=files, model="artifacts")
    with pytest.raises(ModelRequirementsError, match="some-absent-package"):
        ask(run_id)


def test_a_threshold_travels_with_the_model_or_is_written_on_its_run(
    lab: Lab, seed_folder: Path, tmp_path: Path
) -> None:
    experiment = lab.experiment()
    text = yaml.safe_load((seed_folder / "MLmodel").read_text())
    files = changed(seed_folder, tmp_path / "m")
    (files / "MLmodel").write_text(yaml.safe_dump({**text, "metadata": {"threshold": 0.3}}))
    assert ask(lab.run(experiment, files=files)).threshold == 0.3
    by_tag = lab.run(experiment)
    lab.client.set_tag(by_tag, "fraud_threshold", "0.2")
    assert ask(by_tag).threshold == 0.2
    lab.client.set_tag(by_tag, "fraud_threshold", "high")
    with pytest.raises(ModelError, match=f"threshold 'high' in the tag fraud_threshold of run {by_tag}"):
        ask(by_tag)


@pytest.mark.parametrize("value", ["auto", "0.0", "0.3"])
def test_what_else_is_called_threshold_on_a_run_is_not_the_models(lab: Lab, value: str) -> None:
    run_id = lab.run(lab.experiment())
    lab.client.log_param(run_id, "threshold", value)
    lab.client.set_tag(run_id, "threshold", value)
    assert ask(run_id).threshold is None


def test_a_model_whose_files_are_gone_says_so(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no model")
    run_id = lab.run(lab.experiment(), files=tmp_path)
    with pytest.raises(ModelNotFoundError, match="MLmodel file is gone"):
        ask(run_id)


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a server to which MLflow's password must not be sent, and what it was asked for."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers['Authorization']}")
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", heard
        server.shutdown()


def moved(services: LiveStack, run_id: str, place: str) -> None:
    """MLflow says from now on that the run's files lie there. Its server refuses such places (3.17); earlier ones took
    any, and this one may be set to.
    """
    with services.database("mlflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET artifact_uri = %s WHERE run_uuid = %s", (place, run_id))
        assert cursor.rowcount == 1
        cursor.execute("UPDATE logged_models SET artifact_location = %s WHERE source_run_id = %s", (place, run_id))


@pytest.mark.parametrize(
    "place", ["http://{}/api/2.0/mlflow-artifacts/artifacts/models", "mlflow-artifacts://{}/models"]
)
@pytest.mark.parametrize("model", ["logged", "artifacts"])
def test_another_server_is_not_asked_for_a_model(
    lab: Lab, services: LiveStack, asked_for: tuple[str, list[str]], place: str, model: str
) -> None:
    address, heard = asked_for
    elsewhere, name = place.format(address), lab.experiment()
    run_id = lab.run(name, model=model)
    moved(services, run_id, elsewhere)
    with pytest.raises(UntrustedModelError, match=f"stored at {elsewhere}.*loaded from MLflow at http"):
        ask(run_id)
    # Where MLflow knows of no model, nobody looks whether files that lie elsewhere are one.
    with pytest.raises(UntrustedModelError if model == "logged" else ModelNotFoundError):
        ask("latest", name)
    assert heard == []
    # MLflow's own way asks there, and says who asks.
    with pytest.raises((MlflowException, RequestException)):
        download_artifacts(artifact_uri=f"{elsewhere}/MLmodel")
    assert heard
    assert "Basic" in heard[0]


@pytest.mark.parametrize(
    ("server", "place", "taken"),
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
        # On this machine its paths are ours.
        ("http://127.0.0.1:5000", "/var/models/m", True),
        ("http://localhost:5000", "file:///var/models/m", True),
    ],
)
def test_places_from_which_models_are_taken(
    monkeypatch: pytest.MonkeyPatch, server: str, place: str, taken: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    store = ModelStore()
    if taken:
        store._artifact_uris.require_trusted("it", place)
        return
    with pytest.raises(UntrustedModelError) as caught:
        store._artifact_uris.require_trusted("it", place)
    assert "secret" not in str(caught.value)


def test_a_run_whose_bucket_is_gone_has_no_model(lab: Lab, services: LiveStack) -> None:
    """Nobody else's tidying up stops the scoring."""
    name = lab.experiment()
    run_id = lab.run(name)
    for model in ("artifacts", None):
        moved(services, lab.run(name, model=model), f"s3://gone-{uuid.uuid4().hex}/artifacts")
    assert ask("latest", name).run_id == run_id


def test_a_copied_version_leads_to_the_place_of_the_first(lab: Lab, registered: Register) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    name = registered(run_id, f"runs:/{run_id}/model")
    copied = lab.client.copy_model_version(f"models:/{name}/1", f"{name} copied")
    try:
        assert ask(f"models:/{copied.name}/{copied.version}").run_id == run_id
        assert ModelStore()._artifact_uris.resolve(f"models:/{copied.name}/1").startswith("s3://mlflow/")
    finally:
        lab.client.delete_registered_model(copied.name)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_mlflow_that_is_down_is_told_soon_and_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{closed_port()}")
    started = time.monotonic()
    for asked in ("latest", "0" * 32, "models:/fraud@champion"):
        with pytest.raises(ModelStoreError, match=r"MLflow at http://127.0.0.1:") as caught:
            ask(asked)
        assert "secret" not in str(caught.value)
        assert not caught.value.permanent
    assert time.monotonic() - started < 45


def test_an_artifact_store_that_is_down_is_no_missing_model(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = lab.experiment()
    logged, artifacts = lab.run(experiment), lab.run(experiment, model="artifacts")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    for run_id in (logged, artifacts):
        with pytest.raises(ModelStoreError):
            ask(run_id)


def test_wrong_keys_of_the_artifact_store_are_told_for_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    # MLflow and boto3 keep a client for an address, with the keys that it was made with.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL_S3"].replace("127.0.0.1", "localhost"))
    with pytest.raises(ModelStoreAccessError, match="check the keys in the connection aws_default") as caught:
        ask(run_id)
    assert caught.value.permanent


def test_an_address_that_is_none_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://ann:secret@nowhere")
    with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI=nothing://nowhere") as caught:
        ask("latest")
    assert "secret" not in str(caught.value)


def test_no_mlflow_at_all_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI is not set"):
        ask("latest")


@pytest.mark.parametrize(
    ("chosen_by", "error", "says"),
    [
        (DEFAULT, SettingError, "FRAUD_MODEL: 'newest' is no model; allowed: latest"),
        (HOLD, SettingError, "fraud_model_hold: 'newest'"),
        (RUN_CONFIGURATION, RunConfigurationError, "model='newest' is not allowed; allowed: latest"),
    ],
)
def test_what_is_not_allowed_names_where_it_was_set(chosen_by: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve("newest", experiment=None, chosen_by=chosen_by)
