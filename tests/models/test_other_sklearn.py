"""Load real pickles of scikit-learn 1.2.2, which pickles/recipe.py wrote."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from include.errors import ModelError
from include.models.load import load
from include.models.model_run import ModelRun
from include.models.scoring import score

PICKLES = sorted((Path(__file__).parent / "pickles").glob("*.pickle"))


def save(folder: Path, pickle: Path, *, flavor: bool) -> ModelRun:
    """Write the files that MLflow 2 saved, with the flavor sklearn or only python_function."""
    flavors: dict[str, dict[str, object]] = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict"}
    }
    if flavor:
        flavors["sklearn"] = {
            "pickled_model": "model.pkl",
            "serialization_format": "pickle",
            "sklearn_version": "1.2.2",
        }
    inputs = [{"type": "double", "name": name, "required": True} for name in ("amt", "city_pop")]
    signature = {"inputs": json.dumps(inputs)}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "signature": signature}))
    (folder / "model.pkl").write_bytes(pickle.read_bytes())
    (folder / "requirements.txt").write_text("mlflow==2.22.5\nscikit-learn==1.2.2\n")
    return ModelRun("0" * 32, "models:/m-1", "e", None, None, "latest", "default", None, "", None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pickle", PICKLES, ids=lambda pickle: pickle.stem)
@pytest.mark.parametrize("flavor", [True, False], ids=["sklearn", "pyfunc"])
def test_error_for_pickle_of_other_sklearn_names_both_versions(tmp_path: Path, pickle: Path, flavor: bool) -> None:
    run = save(tmp_path, pickle, flavor=flavor)
    with pytest.raises(ModelError) as caught:
        score(load(run, tmp_path), [b'{"amt": 1.0, "city_pop": 3.0}'])
    assert f"trained with scikit-learn 1.2.2, here is {version('scikit-learn')}" in str(caught.value)
