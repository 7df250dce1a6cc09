"""A real MLflow 2 server: latest, previous, runs, aliases, scoring, `fraud check` and `fraud train`; and servers that
refuse what MLflow 3 brought."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dev.stack.part import BIN
from include.check.check_result import CheckResult, run_checks
from include.check.models_check import check_models
from include.errors import ModelNotFoundError, SettingError
from include.models.load import load
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
from include.models.resolve import DEFAULT, resolve
from include.models.scoring import score
from include.settings import Settings
from tests.support import mlflow_2
from tests.support.http_proxy import proxy

# The first start of a cold cache downloads some 150 MB.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class MlflowServer:
    """An MLflow 2 server, and the ids of its runs."""

    address: str
    first: str
    second: str
    trial: str
    other: str


@pytest.fixture(scope="module")
def mlflow_2_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Two models of a client of MLflow 2, the later one registered with an alias; a newer child run and a newer run
    whose model has another name."""
    with mlflow_2.server(tmp_path_factory.mktemp("mlflow2")) as address:
        runs = mlflow_2.log_models(address, "cards", "model", "model", "model", "calibrated")
        first, second, trial, other = runs
        client = MlflowClient(address)
        client.create_registered_model("cards")
        client.create_model_version("cards", f"{client.get_run(second).info.artifact_uri}/model", second)
        client.set_tag(trial, "mlflow.parentRunId", first)
        client.set_registered_model_alias("cards", "champion", "1")
        empty = client.create_run(client.create_experiment("no models")).info.run_id
        client.set_terminated(empty)
        yield MlflowServer(address, first, second, trial, other)


@pytest.fixture(autouse=True)
def tracking(mlflow_2_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_2_server.address)


def ask(asked: str) -> ModelRun:
    return resolve(asked, experiment="cards", chosen_by=DEFAULT)


def check(tmp_path: Path) -> dict[str, CheckResult]:
    settings = Settings(model_cache=tmp_path / "models", experiment="cards")
    return {one.name: one for one in run_checks([("tried", lambda: check_models(settings, "latest", DEFAULT))])}


def test_latest_previous_a_run_and_an_alias_are_found(mlflow_2_server: MlflowServer) -> None:
    assert [ask(asked).run_id for asked in ("latest", "previous")] == [mlflow_2_server.second, mlflow_2_server.first]
    assert ask(mlflow_2_server.first).run_id == mlflow_2_server.first
    for asked in ("models:/cards@champion", "models:/cards/1", "latest"):
        assert (ask(asked).name, ask(asked).version, ask(asked).run_id) == ("cards", "1", mlflow_2_server.second)


def test_a_model_of_another_name_is_named_and_can_be_asked_for(mlflow_2_server: MlflowServer) -> None:
    with pytest.raises(
        ModelNotFoundError, match=f"but under 'calibrated': ask for runs:/{mlflow_2_server.other}/calibrated"
    ):
        ask(mlflow_2_server.other)
    assert ask(f"runs:/{mlflow_2_server.other}/calibrated").model_uri.endswith(
        f"/{mlflow_2_server.other}/artifacts/calibrated"
    )


def test_a_logged_model_asked_for_by_id_is_refused_with_what_to_ask_for(mlflow_2_server: MlflowServer) -> None:
    says = (
        f"MLflow at {mlflow_2_server.address} \\(version 2.22.5\\) answers 404 for the logged models that came with "
        f"MLflow 3, so m-{'0' * 32} cannot be found by its id: ask for .* runs:/<run id>/<name>"
    )
    with pytest.raises(ModelNotFoundError, match=says):
        ask(f"models:/m-{'0' * 32}")


def test_its_model_scores(mlflow_2_server: MlflowServer, tmp_path: Path) -> None:
    found = ask("latest")
    loaded = load(found, ModelCache(tmp_path, 10**9).fetch(found))
    payments = [json.dumps({"amt": amt, "city_pop": 3.0}).encode() for amt in (1.0, 39.0)]
    assert list(score(loaded, payments).prediction) == [0, 1]


def test_check_passes_and_shows_server_version(mlflow_2_server: MlflowServer, tmp_path: Path) -> None:
    found = check(tmp_path)
    assert all(one.ok for one in found.values()), found
    assert found["MLflow"].text == f"answers at {mlflow_2_server.address}, version 2.22.5"
    assert f"is run {mlflow_2_server.second}, cards version 1" in found["model"].text


@pytest.mark.parametrize("answer", [(403, '{"message": "Forbidden"}'), (404, ""), (405, "no")])
def test_a_hosted_server_that_refuses_logged_models_is_asked_for_artifacts(
    mlflow_2_server: MlflowServer, answer: tuple[int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with proxy(mlflow_2_server.address, {"logged-models": answer, "/version": (404, "")}) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        assert [ask(asked).run_id for asked in ("latest", "previous", mlflow_2_server.first)] == [
            mlflow_2_server.second,
            mlflow_2_server.first,
            mlflow_2_server.first,
        ]
        assert check(tmp_path)["MLflow"] == CheckResult("MLflow", f"answers at {front.address}")
        with pytest.raises(ModelNotFoundError, match=f"answers {answer[0]} for the logged models"):
            resolve("latest", experiment="no models", chosen_by=DEFAULT)
        with pytest.raises(ModelNotFoundError, match=f"answers {answer[0]} for the logged models .* runs:/<run id>/"):
            ask(f"models:/m-{'0' * 32}")


def test_a_server_too_old_is_named_with_its_version(
    mlflow_2_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one before 2.0 answers: it knows no search of experiments, and no aliases."""
    missing = (404, "<!doctype html><title>404 Not Found</title>")
    with proxy(
        mlflow_2_server.address, {"experiments/search": missing, "/alias": missing, "/version": (200, "1.27.0")}
    ) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        told = (
            f"MLFLOW_TRACKING_URI={front.address}: the server runs MLflow 1.27.0, which is too old: upgrade it to 2.4"
        )
        for asked in ("latest", "models:/cards@champion"):
            with pytest.raises(SettingError, match=told):
                resolve(asked, experiment=None, chosen_by=DEFAULT)
        found = check(tmp_path)
        assert list(found) == ["tried"]
        assert told in found["tried"].text
        done = train(front.address, "old")
        assert done.returncode == 1
        assert told in done.stderr


def train(address: str, experiment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "fraud", "train", "--rows", "4000", "--days", "2", "--trees", "5", "--experiment", experiment],
        env={**os.environ, "MLFLOW_TRACKING_URI": address}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_model_trained_here_is_logged_registered_and_latest(mlflow_2_server: MlflowServer, tmp_path: Path) -> None:
    done = train(mlflow_2_server.address, "trained")
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[1]
    found = resolve("latest", experiment="trained", chosen_by=DEFAULT)
    assert (found.run_id, found.name, found.version) == (run_id, "fraud_scoring", "1")
    assert load(found, ModelCache(tmp_path, 10**9).fetch(found)).run == found
