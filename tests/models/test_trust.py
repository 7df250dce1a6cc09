"""With FRAUD_ALLOW_PICKLES=false, models of a real MLflow whose code would create a folder never do."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow.pyfunc
import pandas as pd
import pytest
import yaml
from airflow.sdk import Context
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fraud_scoring.operators import ResolveModelOperator
from include.batch.manifest import Manifest
from include.errors import ModelError, UntrustedModelError
from include.models import model_cache as cache_module
from include.models import pickle_cache, trust
from include.models.features_module import module_name
from include.models.load import load
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
from include.models.resolve import DEFAULT, resolve
from include.models.selection import Hold
from include.producer.simulator import Simulator
from include.settings import Settings
from include.training.pipeline import pipeline_config
from tests.models.conftest import Lab
from tests.models.test_pickle_cache import pickles, save_skops
from tests.models.zoo import NUMERIC, history, run_of, save_pyfunc, save_seed_model, seed_pipeline, signature

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
FRAME, FRAUD = history()
PAYMENTS = Simulator(seed=3, per_day=2000, fraud_share=0.04, cards=200).frame(days=1)


class Mark:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The folder that `evil_pickle` creates, which is proved here."""
    path = tmp_path / "mark"
    pickle.loads(pickle.dumps(Mark(path)))
    path.rmdir()
    return path


@pytest.fixture
def evil_pickle(mark: Path) -> bytes:
    return pickle.dumps(Mark(mark))


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", 10**9)


@pytest.fixture
def log_model(lab: Lab) -> Callable[[Path], str]:
    """A function that logs files as a model and returns the id of its run."""
    return lambda files: lab.run(lab.experiment(), files=files)


def refusal(run_id: str, cache: ModelCache) -> str:
    """Return the error text of the refused run."""
    with pytest.raises(
        UntrustedModelError, match=f"{run_id}.*FRAUD_ALLOW_PICKLES=false.*serialization_format"
    ) as caught:
        resolve(run_id, experiment=None, chosen_by=DEFAULT, trust_check_cache=cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fetch(run_id: str, cache: ModelCache) -> Path:
    """Resolve the run with the check, and return the model's folder in the cache."""
    return cache.fetch(resolve(run_id, experiment=None, chosen_by=DEFAULT, trust_check_cache=cache))


def edit(folder: Path, **flavors: dict[str, Any] | None) -> Path:
    """Change the flavors in the MLmodel: None deletes a flavor, and `...` deletes an entry."""
    file = folder / "MLmodel"
    content = yaml.safe_load(file.read_text())
    for name, entries in flavors.items():
        if entries is None:
            del content["flavors"][name]
        else:
            merged = {**content["flavors"].get(name, {}), **entries}
            content["flavors"][name] = {key: value for key, value in merged.items() if value is not ...}
    file.write_text(yaml.safe_dump(content))
    return folder


class Threshold(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return (model_input["amt"] > 100).astype(int)


def seed(folder: Path) -> Path:
    return save_seed_model(folder / "m")


def pickled(folder: Path) -> Path:
    return edit(seed(folder), sklearn={"serialization_format": "pickle"})


def without_format(folder: Path) -> Path:
    """MLflow unpickles a model that does not name its format."""
    return edit(seed(folder), sklearn={"serialization_format": ...})


def pyfunc(folder: Path) -> Path:
    return save_pyfunc(folder / "m", Threshold(), ["amt"])


def loader(folder: Path) -> Path:
    """MLflow would import the module `evil` from the code folder."""
    return edit(seed(folder), sklearn=None, python_function={"loader_module": "evil", "code": "code"})


def xgboost(folder: Path) -> Path:
    return edit(seed(folder), sklearn=None, xgboost={"model_class": "xgboost.sklearn.XGBClassifier"})


def outside(folder: Path) -> Path:
    return edit(save_skops(folder, seed_pipeline()), sklearn={"pickled_model": "../../other/model.skops"})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (seed, "is stored as cloudpickle"),
        (pickled, "is stored as pickle"),
        (without_format, "is stored as pickle"),
        (pyfunc, "has the flavor python_function"),
        (loader, "has the flavor python_function"),
        (xgboost, "has the flavor python_function and xgboost"),
        (outside, "names the file '../../other/model.skops', which is not in the model's folder"),
    ],
)
def test_model_that_may_run_code_is_refused_before_download(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    files = make(tmp_path)
    assert reason in refusal(log_model(files), cache)
    assert not cache.folder.exists()
    with pytest.raises(UntrustedModelError, match=reason):
        load(run_of(), files, allow_pickles=False)


def test_pickle_named_skops_is_not_unpickled(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path, evil_pickle: bytes, mark: Path
) -> None:
    files = save_skops(tmp_path, seed_pipeline())
    (files / "model.skops").write_bytes(evil_pickle)
    for _ in range(2):
        # The second time the model is in the cache.
        assert "skops cannot read (BadZipFile)" in refusal(log_model(files), cache)
    assert not mark.exists()


def test_downloaded_file_named_like_a_cached_pickle_is_not_unpickled(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path, evil_pickle: bytes, mark: Path
) -> None:
    files = save_skops(tmp_path, seed_pipeline())
    types = (*trust.TRUSTED_TYPES, f"{module_name()}.PaymentFeatures")
    for trusted in ((), types):
        name = f".built-{pickle_cache._versions_digest(trusted)}.pickle"
        (files / name).write_bytes(hashlib.sha256(evil_pickle).digest() + evil_pickle)
    folder = fetch(log_model(files), cache)
    for allow in (False, True):
        assert load(run_of(), folder, allow_pickles=allow).predict(FRAME[NUMERIC]).prediction.sum() > 0
    assert not mark.exists()
    # The name is right: if the file is in the cache, it is unpickled.
    shutil.copy(files / name, folder)
    with pytest.raises(ModelError, match="NoneType, not a classifier"):
        load(run_of(), folder, allow_pickles=False)
    assert mark.exists()


def test_cache_of_earlier_version_with_such_a_file_is_not_intact(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path
) -> None:
    """Earlier versions downloaded such a file and stored its digest."""
    folder = fetch(log_model(save_skops(tmp_path, seed_pipeline())), cache)
    for file in pickles(folder):
        file.write_bytes(b"planted")
    cache_module._write_digests(folder)
    assert pickles(folder)
    assert not cache_module._is_intact(folder)


def test_trusted_types_in_the_mlmodel_are_ignored(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path
) -> None:
    """MLflow's own loader accepts the list: this model would remove a folder when it predicts."""
    model = make_pipeline(FunctionTransformer(shutil.rmtree), RandomForestClassifier(2))
    model[-1].fit(FRAME[NUMERIC], FRAUD)
    files = save_skops(tmp_path, model, signature=signature(*NUMERIC))
    run_id = log_model(files)
    assert (
        "shutil.rmtree" in yaml.safe_load((files / "MLmodel").read_text())["flavors"]["sklearn"]["skops_trusted_types"]
    )
    assert "holds objects of shutil.rmtree:" in refusal(run_id, cache)
    # The same holds after a run that allowed pickles has cached the model.
    folder = cache.fetch(resolve(run_id, experiment=None, chosen_by=DEFAULT))
    load(run_of(), folder)
    assert len(pickles(folder)) == 1
    assert "shutil.rmtree" in refusal(run_id, cache)


@pytest.mark.parametrize("form", ["numeric", "payment"])
def test_model_trained_here_scores_the_same_without_its_code(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path, mark: Path, form: str
) -> None:
    pipeline, code = pipeline_config(form, 5, 1).fit(PAYMENTS, tmp_path)
    files = save_skops(tmp_path, pipeline, code_paths=[str(file) for file in code] or None)
    for file in files.glob("code/*.py"):
        file.write_text(f"import os; os.mkdir({str(mark)!r})")
    folder = fetch(log_model(files), cache)
    for _ in range(2):
        model = load(run_of(), folder, allow_pickles=False)
        frame = PAYMENTS[[column.name for column in model.input_columns]]
        probability = model.predict(frame).probability
        assert probability is not None
        assert probability.tolist() == pipeline.predict_proba(frame)[:, 1].tolist()
    assert not mark.exists()


def test_features_of_another_version_are_refused(
    log_model: Callable[[Path], str], cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, code = pipeline_config("payment", 2, 1).fit(PAYMENTS, tmp_path)
    files = save_skops(tmp_path, pipeline, code_paths=[str(file) for file in code])
    changed = tmp_path / "payment_features.py"
    changed.write_bytes(code[0].read_bytes() + b"\n# a later version\n")
    monkeypatch.setattr("include.models.features_module.FILE", changed)
    assert f"holds objects of {code[0].stem}.PaymentFeatures:" in refusal(log_model(files), cache)


@pytest.mark.parametrize("held", [False, True])
def test_task_applies_the_setting(
    log_model: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    run_id = log_model(seed(tmp_path))
    hold = Hold(run_id, "latest", None, "ann", "2026-11-26T12:00:00+00:00")
    monkeypatch.setenv("AIRFLOW_VAR_FRAUD_MODEL_HOLD", hold.to_json())
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    context = cast("Context", {"dag_run": SimpleNamespace(conf={} if held else {"model": run_id})})
    task = ResolveModelOperator(task_id="resolve_model")
    # An empty batch: a model that is to be held is checked all the same.
    manifest = Manifest("b", "r", "", "group", "topic_1", "t", "2026-11-26T12:00:00+00:00", ())
    settings = Settings.from_environment({**os.environ, "FRAUD_ALLOW_PICKLES": "false"})
    with pytest.raises(UntrustedModelError, match="is stored as cloudpickle"):
        task.step(context, settings, manifest)


def test_pickle_is_loaded_without_the_setting(log_model: Callable[[Path], str], tmp_path: Path) -> None:
    run: ModelRun = resolve(log_model(seed(tmp_path)), experiment=None, chosen_by=DEFAULT)
    assert load(run, tmp_path / "m").predict(FRAME[NUMERIC]).prediction.sum() > 0
