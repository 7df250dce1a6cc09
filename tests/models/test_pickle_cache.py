"""A skops model is built once and then loaded from its pickle, unless the pickle is damaged or out of date."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
import skops.io

from include.errors import ModelError
from include.models.load import load
from include.producer.simulator import Simulator
from include.training.pipeline import pipeline_config
from tests.models.zoo import NUMERIC, history, run_of, save_sklearn, seed_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_skops(tmp_path, seed_pipeline())


def save_skops(folder: Path, model: Any, **options: Any) -> Path:
    skops.io.dump(model, folder / "model.skops")
    trusted = skops.io.get_untrusted_types(file=folder / "model.skops")
    return save_sklearn(folder / "model", model, serialization_format="skops", skops_trusted_types=trusted, **options)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list with one entry for each model that MLflow builds."""
    built: list[str] = []
    load_model = mlflow.sklearn.load_model
    monkeypatch.setattr(mlflow.sklearn, "load_model", lambda path: built.append(path) or load_model(path))
    return built


def pickles(folder: Path) -> list[Path]:
    return list(folder.glob(".built-*.pickle"))


def scores(folder: Path) -> list[float]:
    probability = load(run_of(), folder).predict(history()[0][NUMERIC]).probability
    assert probability is not None
    return [float(value) for value in probability]


def test_model_is_built_once_and_scores_the_same_from_its_pickle(folder: Path, builds: list[str]):
    first = scores(folder)
    assert scores(folder) == first
    assert len(builds) == 1
    (file,) = pickles(folder)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"x" * 500, None])
def test_damaged_pickle_is_built_again(folder: Path, builds: list[str], content: bytes | None):
    first = scores(folder)
    (file,) = pickles(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if content is None else content)
    assert scores(folder) == first
    assert len(builds) == 2
    assert scores(folder) == first
    assert len(builds) == 2


def test_other_library_version_builds_again(folder: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch):
    scores(folder)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    scores(folder)
    assert len(builds) == 2


def test_mlflow_reports_that_pickles_are_forbidden(folder: Path, monkeypatch: pytest.MonkeyPatch):
    scores(folder)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(ModelError, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        load(run_of(), folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_model_in_read_only_folder_scores(folder: Path):
    folder.chmod(0o500)
    assert scores(folder)


def test_other_formats_get_no_pickle(tmp_path: Path):
    plain = save_sklearn(tmp_path / "model", seed_pipeline())
    assert scores(plain)
    assert pickles(plain) == []


def test_code_stored_with_the_model_is_importable(tmp_path: Path):
    """A new process has not imported it."""
    payments = Simulator(seed=3, per_day=2000, fraud_share=0.04, cards=200).frame(days=1)
    pipeline, code = pipeline_config("payment", 5, 1).fit(payments, tmp_path)
    folder = save_skops(tmp_path, pipeline, code_paths=[str(file) for file in code])
    payments.drop(columns="is_fraud").head(50).to_json(tmp_path / "payments.json", orient="split")
    script = (
        "import sys, pathlib, pandas as pd; from include.models.load import load; from tests.models.zoo import run_of; "
        f"model = load(run_of(), pathlib.Path({str(folder)!r})); "
        f"frame = pd.read_json({str(tmp_path / 'payments.json')!r}, orient='split'); "
        "print(model.predict(frame[[c.name for c in model.input_columns]]).probability.tolist())"
    )
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
        printed.append(done.stdout.splitlines()[-1])
    assert len(pickles(folder)) == 1
    assert printed[0] == printed[1]
    assert len(json.loads(printed[0])) == 50
