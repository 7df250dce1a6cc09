"""Tests with a real MLflow 2 server: latest, previous, runs, aliases, scoring, `fraud check` and `fraud train`.

A proxy in front of it stands for servers that reject the endpoints of MLflow 3, and for older servers.
"""

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
class Mlflow2Server:
    """The address of an MLflow 2 server, and the ids of its runs."""

    address: str
    first: str
    second: str
    trial: str
    other: str


@pytest.fixture(scope="module")
def mlflow_2_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow2Server]:
    """Yield a server with models of a client of MLflow 2.

    The model of the run `second`, which is newer than `first`, is registered and has an alias. The runs `trial`, a
    child run, and `other`, whose model has another name, are newer.
    """
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
        yield Mlflow2Server(address, first, second, trial, other)


@pytest.fixture(autouse=True)
def tracking(mlflow_2_server: Mlflow2Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_2_server.address)


def resolve_run(requested: str) -> ModelRun:
    return resolve(requested, experiment="cards", chosen_by=DEFAULT)


def check(tmp_path: Path) -> dict[str, CheckResult]:
    settings = Settings(model_cache=tmp_path / "models", experiment="cards")
    return {
        result.name: result for result in run_checks([("models", lambda: check_models(settings, "latest", DEFAULT))])
    }


def test_latest_previous_run_id_alias_and_version_are_found(mlflow_2_server: Mlflow2Server) -> None:
    assert [resolve_run(requested).run_id for requested in ("latest", "previous")] == [
        mlflow_2_server.second,
        mlflow_2_server.first,
    ]
    assert resolve_run(mlflow_2_server.first).run_id == mlflow_2_server.first
    for requested in ("models:/cards@champion", "models:/cards/1", "latest"):
        run = resolve_run(requested)
        assert (run.name, run.version, run.run_id) == ("cards", "1", mlflow_2_server.second)


def test_error_names_model_of_another_name_which_can_be_requested(mlflow_2_server: Mlflow2Server) -> None:
    with pytest.raises(
        ModelNotFoundError, match=f"it has 'calibrated': request runs:/{mlflow_2_server.other}/calibrated"
    ):
        resolve_run(mlflow_2_server.other)
    assert resolve_run(f"runs:/{mlflow_2_server.other}/calibrated").model_uri.endswith(
        f"/{mlflow_2_server.other}/artifacts/calibrated"
    )


def test_error_for_logged_model_by_id_says_what_to_request(mlflow_2_server: Mlflow2Server) -> None:
    message = (
        f"MLflow at {mlflow_2_server.address} \\(version 2.22.5\\) answers 404 for the logged models that came with "
        f"MLflow 3, so m-{'0' * 32} cannot be found by its id: request the model by its run .* runs:/<run id>/<name>"
    )
    with pytest.raises(ModelNotFoundError, match=message):
        resolve_run(f"models:/m-{'0' * 32}")


def test_model_of_mlflow_2_scores(mlflow_2_server: Mlflow2Server, tmp_path: Path) -> None:
    run = resolve_run("latest")
    model = load(run, ModelCache(tmp_path, 10**9).fetch(run))
    payments = [json.dumps({"amt": amt, "city_pop": 3.0}).encode() for amt in (1.0, 39.0)]
    assert list(score(model, payments).prediction) == [0, 1]


def test_check_passes_and_shows_server_version(mlflow_2_server: Mlflow2Server, tmp_path: Path) -> None:
    results = check(tmp_path)
    assert all(result.ok for result in results.values()), results
    assert results["MLflow"].text == f"answers at {mlflow_2_server.address}, version 2.22.5"
    assert f"is run {mlflow_2_server.second}, cards version 1" in results["model"].text


@pytest.mark.parametrize("answer", [(403, '{"message": "Forbidden"}'), (404, ""), (405, "no")])
def test_server_that_rejects_logged_models_gives_models_among_artifacts(
    mlflow_2_server: Mlflow2Server, answer: tuple[int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with proxy(mlflow_2_server.address, {"logged-models": answer, "/version": (404, "")}) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        assert [resolve_run(requested).run_id for requested in ("latest", "previous", mlflow_2_server.first)] == [
            mlflow_2_server.second,
            mlflow_2_server.first,
            mlflow_2_server.first,
        ]
        assert check(tmp_path)["MLflow"] == CheckResult("MLflow", f"answers at {front.address}")
        with pytest.raises(ModelNotFoundError, match=f"answers {answer[0]} for the logged models"):
            resolve("latest", experiment="no models", chosen_by=DEFAULT)
        with pytest.raises(ModelNotFoundError, match=f"answers {answer[0]} for the logged models .* runs:/<run id>/"):
            resolve_run(f"models:/m-{'0' * 32}")


def test_error_of_too_old_server_names_its_version(
    mlflow_2_server: Mlflow2Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server before 2.0 has no search for experiments, and no aliases."""
    missing = (404, "<!doctype html><title>404 Not Found</title>")
    with proxy(
        mlflow_2_server.address, {"experiments/search": missing, "/alias": missing, "/version": (200, "1.27.0")}
    ) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", front.address)
        message = (
            f"MLFLOW_TRACKING_URI={front.address}: the server runs MLflow 1.27.0, which is too old: upgrade it to 2.4"
        )
        for requested in ("latest", "models:/cards@champion"):
            with pytest.raises(SettingError, match=message):
                resolve(requested, experiment=None, chosen_by=DEFAULT)
        results = check(tmp_path)
        assert list(results) == ["models"]
        assert message in results["models"].text
        training = train(front.address, "old")
        assert training.returncode == 1
        assert message in training.stderr


def train(address: str, experiment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "fraud", "train", "--rows", "4000", "--days", "2", "--trees", "5", "--experiment", experiment],
        env={**os.environ, "MLFLOW_TRACKING_URI": address}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_fraud_train_logs_and_registers_the_latest_model(mlflow_2_server: Mlflow2Server, tmp_path: Path) -> None:
    training = train(mlflow_2_server.address, "trained")
    assert training.returncode == 0, training.stderr
    run_id = training.stdout.split()[1]
    run = resolve("latest", experiment="trained", chosen_by=DEFAULT)
    assert (run.run_id, run.name, run.version) == (run_id, "fraud_scoring", "1")
    assert load(run, ModelCache(tmp_path, 10**9).fetch(run)).run == run
