"""Train against the stack's real MLflow, with its artifacts on the stack's real S3."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from include.cli.main import app
from include.errors import ModelStoreError, SettingError, TrainingError
from include.models import payment_features
from include.reviews.confirmed_file import ConfirmedFile, ConfirmedPayment
from include.training.train import TrainedRun, train
from include.training.training_data import DataSource, split

pytestmark = pytest.mark.stack

NAME = EXPERIMENT = f"training_test_{uuid.uuid4().hex[:8]}"

# Loads a model in a process that can import nothing of this project.
OTHER_PROCESS = """
import sys
sys.modules["include"] = None
import mlflow, pandas
model = mlflow.sklearn.load_model(sys.argv[1])
payments = pandas.read_csv(sys.argv[2])[list(model.feature_names_in_)]
scores = {"fraud": model.predict(payments), "probability": model.predict_proba(payments)[:, 1]}
pandas.DataFrame(scores).to_csv(sys.argv[3])
"""


@dataclass(frozen=True)
class Trained:
    run: TrainedRun
    logged: Any
    model: Path

    @property
    def mlmodel(self) -> dict[str, Any]:
        return yaml.safe_load((self.model / "MLmodel").read_text())


def trained(payments: pd.DataFrame, folder: Path, **choices: Any) -> Trained:
    run = train(payments, experiment=EXPERIMENT, name=NAME, trees=10, **choices)
    files = mlflow.artifacts.download_artifacts(f"runs:/{run.run_id}/model", dst_path=str(folder))
    return Trained(run, mlflow.MlflowClient().get_run(run.run_id), Path(files))


@pytest.fixture(scope="module", autouse=True)
def _delete_models(tracking_server: dict[str, str]) -> Iterator[None]:
    """Delete the models, because other tests of the session request the latest one."""
    yield
    client = mlflow.MlflowClient()
    client.delete_registered_model(NAME)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)


@pytest.fixture(scope="module")
def by_payment(
    tracking_server: dict[str, str], payments: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    source = DataSource("two days", "0" * 64)
    return trained(payments, tmp_path_factory.mktemp("payment"), threshold=0.3, source=source)


@pytest.fixture(scope="module")
def by_number(
    tracking_server: dict[str, str], payments: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return trained(payments, tmp_path_factory.mktemp("numeric"), features="numeric")


def test_run_has_parameters_of_the_training(by_payment: Trained, payments: pd.DataFrame) -> None:
    params = by_payment.logged.data.params

    assert by_payment.logged.info.status == "FINISHED"
    assert params["features"] == "payment"
    assert params["columns"].split(", ") == list(payment_features.COLUMNS)
    assert (params["trees"], params["threshold"], params["seed"]) == ("10", "0.3", "42")
    assert (params["data"], params["data_sha256"]) == ("two days", "0" * 64)
    assert int(params["train_payments"]) + int(params["held_out_payments"]) == len(payments)
    assert params["train_to"] < params["held_out_from"]
    assert params["held_out_to"] == payments["trans_date_trans_time"].max()


def test_run_names_its_data_set(by_payment: Trained) -> None:
    [entry] = by_payment.logged.inputs.dataset_inputs

    assert entry.dataset.name == "two days"
    assert entry.dataset.digest
    assert json.loads(entry.dataset.profile)["num_rows"] == int(by_payment.logged.data.params["train_payments"]) + int(
        by_payment.logged.data.params["held_out_payments"]
    )


def test_metrics_are_those_of_the_held_out_payments(by_payment: Trained, payments: pd.DataFrame) -> None:
    held_out = split(payments).held_out
    labels = held_out["is_fraud"].to_numpy() == 1

    model = mlflow.sklearn.load_model(str(by_payment.model))
    is_found = model.predict_proba(held_out)[:, 1] >= 0.3

    metrics = by_payment.logged.data.metrics
    assert metrics == by_payment.run.metrics
    assert metrics["true_positives"] == (is_found & labels).sum() > 0
    assert metrics["precision"] == pytest.approx(labels[is_found].mean())
    assert metrics["recall"] == pytest.approx(is_found[labels].mean())
    assert 0.5 < metrics["average_precision"] < 1
    assert 0.5 < metrics["roc_auc"] < 1


def test_plots_are_png_files(by_payment: Trained, tmp_path: Path) -> None:
    folder = mlflow.artifacts.download_artifacts(f"runs:/{by_payment.run.run_id}/plots", dst_path=str(tmp_path))
    files = sorted(Path(folder).iterdir())

    assert [file.name for file in files] == ["confusion_matrix.png", "precision_recall_curve.png", "roc_curve.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5_000 for file in files)


def test_model_is_registered(by_payment: Trained, by_number: Trained) -> None:
    client = mlflow.MlflowClient()

    for one in (by_payment, by_number):
        assert client.get_model_version(NAME, one.run.version).run_id == one.run.run_id
    assert by_number.run.version != by_payment.run.version


def test_model_is_stored_without_pickle(by_payment: Trained) -> None:
    flavor = by_payment.mlmodel["flavors"]["sklearn"]

    assert flavor["serialization_format"] == "skops"
    assert (by_payment.model / flavor["pickled_model"]).suffix == ".skops"
    assert not [file for file in by_payment.model.rglob("*") if file.suffix == ".pkl"]


def test_requirements_pin_the_installed_versions(by_payment: Trained) -> None:
    lines = (by_payment.model / "requirements.txt").read_text().split()

    assert {"scikit-learn", "imbalanced-learn", "skops", "pandas", "numpy", "mlflow"} <= {
        line.split("==")[0] for line in lines
    }
    assert all(version(line.split("==")[0]) == line.split("==")[1] for line in lines)


def test_signature_and_example_name_the_input_columns(by_payment: Trained, by_number: Trained) -> None:
    inputs = json.loads(by_payment.mlmodel["signature"]["inputs"])
    example = json.loads((by_payment.model / "input_example.json").read_text())

    assert tuple(column["name"] for column in inputs) == payment_features.COLUMNS
    assert tuple(example["columns"]) == payment_features.COLUMNS
    assert [column["name"] for column in json.loads(by_number.mlmodel["signature"]["inputs"])] == list(
        mlflow.sklearn.load_model(str(by_number.model)).feature_names_in_
    )


def test_model_holds_no_payment_data(by_payment: Trained, payments: pd.DataFrame) -> None:
    files = [file.read_bytes() for file in by_payment.model.rglob("*") if file.is_file()]
    with ZipFile(by_payment.model / "model.skops") as archive:
        files += [archive.read(name) for name in archive.namelist()]
    logged = b"".join(files)

    assert b"category" in logged
    for column in ("cc_num", "street", "trans_num", "dob"):
        assert not [value for value in payments[column].astype("str").unique() if value.encode() in logged]


def test_threshold_is_stored_with_the_model(by_payment: Trained, by_number: Trained) -> None:
    assert by_payment.mlmodel["metadata"] == {"threshold": 0.3}
    assert not by_number.mlmodel.get("metadata")


@pytest.mark.parametrize("fixture", ["by_payment", "by_number"])
def test_process_without_this_project_predicts_the_same(
    request: pytest.FixtureRequest, payments: pd.DataFrame, tmp_path: Path, fixture: str
) -> None:
    one: Trained = request.getfixturevalue(fixture)
    sample = payments.head(500)
    sample.to_csv(tmp_path / "payments.csv", index=False)

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, f"runs:/{one.run.run_id}/model", "payments.csv", "scores.csv"],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=120,
    )

    scores = pd.read_csv(tmp_path / "scores.csv")
    model = mlflow.sklearn.load_model(str(one.model))
    inputs = sample[list(model.feature_names_in_)]
    assert scores["fraud"].tolist() == model.predict(inputs).tolist()
    assert np.allclose(scores["probability"], model.predict_proba(inputs)[:, 1], rtol=0, atol=1e-12)
    assert 0 < scores["fraud"].sum() < len(scores)


def test_one_process_loads_two_versions_of_the_feature_code(
    by_payment: Trained,
    tracking_server: dict[str, str],
    payments: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = tmp_path / "payment_features.py"
    text = Path(str(payment_features.__file__)).read_text()
    changed.write_text(text.replace("EARTH_RADIUS_KM = 6371.0088", "EARTH_RADIUS_KM = 3959.0"))
    monkeypatch.setattr("include.models.features_module.FILE", changed)
    newer = trained(payments, tmp_path)

    old, new = (mlflow.sklearn.load_model(str(one.model))[0] for one in (by_payment, newer))

    index = list(old.get_feature_names_out()).index("distance_km")
    distances = old.transform(payments)[:, index], new.transform(payments)[:, index]
    assert np.allclose(distances[0] * 3959.0 / 6371.0088, distances[1])


def test_too_little_data_creates_no_run(tracking_server: dict[str, str], payments: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match="0 frauds and"):
        train(payments[payments["is_fraud"] == 0], experiment="training of nothing")

    assert mlflow.get_experiment_by_name("training of nothing") is None


@pytest.mark.parametrize("threshold", [0, 1, -0.1, float("nan")])
def test_threshold_outside_0_and_1_is_an_error(payments: pd.DataFrame, threshold: float) -> None:
    with pytest.raises(TrainingError, match="between 0 and 1"):
        train(payments, threshold=threshold)


def test_error_names_numeric_column_with_missing_values(payments: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match="values are missing in: city_pop"):
        train(payments.assign(city_pop=np.nan), features="numeric")


def test_missing_mlflow_address_is_an_error(
    payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI is not set"):
        train(payments)

    assert list(tmp_path.iterdir()) == []


def test_error_for_stopped_mlflow_hides_password(payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{unused.getsockname()[1]}")

        with pytest.raises(ModelStoreError, match=r"MLflow at http://127\.0\.0\.1:\d+ .* refused") as raised:
            train(payments)

    assert "secret" not in str(raised.value)


def test_command_trains_and_logs(tracking_server: dict[str, str], payments: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "payments.csv"
    payments.to_csv(file)
    arguments = ["train", "--csv", str(file), "--experiment", EXPERIMENT, "--name", NAME, "--trees", "5"]

    done = subprocess.run(
        [str(Path(sys.executable).parent / "fraud"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    output = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("http"))
    run = mlflow.MlflowClient().get_run(output["run"])
    assert float(output["recall"]) == pytest.approx(run.data.metrics["recall"], abs=0.0005)
    assert run.data.params["data_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    # Libraries print nothing here. A slow training prints lines of progress.
    first_words = [line.split()[0] for line in done.stderr.splitlines()]
    assert first_words[-1] == "MLflow"
    assert set(first_words[:-1]) <= {"training"}

    again = CliRunner().invoke(app, [*arguments, "--if-none"])
    assert (again.exit_code, again.output) == (0, f"experiment {EXPERIMENT} has a model: run {output['run']}\n")


def test_command_learns_from_confirmed_payments(
    tracking_server: dict[str, str], payments: pd.DataFrame, tmp_path: Path
) -> None:
    file = ConfirmedFile()
    rows = payments.tail(40).to_dict("records")
    file.add([ConfirmedPayment(one["trans_num"], fraud=True, payment=json.dumps(one)) for one in rows])
    (tmp_path / "confirmed.parquet").write_bytes(file.bytes())
    payments.to_csv(tmp_path / "reference.csv", index=False)
    arguments = ["--csv", str(tmp_path / "reference.csv"), "--confirmed", str(tmp_path), "--trees", "2"]
    done = CliRunner().invoke(app, ["train", *arguments, "--experiment", EXPERIMENT, "--name", NAME])
    assert done.exit_code == 0, done.output
    params = mlflow.get_run(re.findall(r"^run +(\w+)$", done.output, re.MULTILINE)[0]).data.params
    assert (params["confirmed"], params["confirmed_payments"]) == (tmp_path.as_uri(), "40")
    assert int(params["train_payments"]) + int(params["held_out_payments"]) == len(payments)
    frauds = int(payments.head(-40)["is_fraud"].sum()) + 40
    assert int(params["train_frauds"]) + int(params["held_out_frauds"]) == frauds


def test_command_prints_error_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "fraud"), "train", "--csv", str(tmp_path / "none.csv")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == f"fraud train: {tmp_path / 'none.csv'} cannot be read: No such file or directory\n"
