from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from include.errors import ModelError, ModelInputError, ModelRequirementsError
from include.models.load import load
from include.models.scoring import score
from tests.models.model_cases import model_cases
from tests.models.zoo import (
    NUMERIC,
    history,
    payment,
    run_of,
    save_pyfunc,
    save_seed_model,
    save_sklearn,
    seed_pipeline,
    signature,
)

FRAME, FRAUD = history()
TEST, _ = history(1500, seed=8)


def names(model: Any) -> list[str]:
    return [column.name for column in model.input_columns]


def test_seed_model_takes_the_numeric_columns_and_scores_as_mlflow_does(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    model = load(run_of(), folder)
    assert names(model) == NUMERIC
    bare = mlflow.sklearn.load_model(str(folder))
    scores = model.predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == bare.predict(TEST[NUMERIC]).tolist()
    assert scores.probability is not None
    assert np.array_equal(scores.probability, bare.predict_proba(TEST[NUMERIC])[:, 1])
    assert 0 < scores.prediction.sum() < len(TEST)


def test_skops_model_with_stored_trusted_types_scores(tmp_path: Path) -> None:
    pipeline = seed_pipeline()
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))
    folder = save_sklearn(tmp_path / "m", pipeline, serialization_format="skops", skops_trusted_types=trusted)
    scores = load(run_of(), folder).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == pipeline.predict(TEST[NUMERIC]).tolist()


@pytest.mark.parametrize("write", [str, float, bool, lambda label: f"{label}.0"])
def test_labels_of_any_type_become_0_and_1(tmp_path: Path, write: Any) -> None:
    forest = RandomForestClassifier(15, random_state=1).fit(FRAME[NUMERIC], [write(label) for label in FRAUD])
    scores = load(run_of(), save_sklearn(tmp_path / "m", forest)).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == [int(label == write(1)) for label in forest.predict(TEST[NUMERIC])]
    assert scores.probability is not None
    assert np.array_equal(scores.probability, forest.predict_proba(TEST[NUMERIC])[:, 1])


def test_model_of_text_and_numbers_scores_without_a_signature(tmp_path: Path) -> None:
    encode = make_column_transformer((OneHotEncoder(), ["category"]), (StandardScaler(), ["amt"]))
    pipeline = make_pipeline(encode, LogisticRegression()).fit(FRAME[["category", "amt"]], FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", pipeline))
    assert names(model) == ["category", "amt"]
    scores = model.predict(TEST[["category", "amt"]])
    assert scores.prediction.tolist() == pipeline.predict(TEST[["category", "amt"]]).tolist()


@pytest.mark.parametrize("sparse", [True, False])
def test_forest_gives_each_row_its_score_alone(tmp_path: Path, sparse: bool) -> None:
    encode = make_column_transformer(
        (OneHotEncoder(sparse_output=sparse), ["category"]), (StandardScaler(), ["amt"]), sparse_threshold=float(sparse)
    )
    pipeline = make_pipeline(encode, RandomForestClassifier(15, random_state=1)).fit(FRAME[["category", "amt"]], FRAUD)
    assert scipy.sparse.issparse(encode.transform(TEST)) == sparse
    scores = load(run_of(), save_sklearn(tmp_path / "m", pipeline)).predict(TEST[["category", "amt"]])
    assert scores.probability is not None
    alone = [pipeline.predict_proba(TEST.iloc[[row]])[0, 1] for row in range(0, len(TEST), 50)]
    assert scores.probability[::50] == pytest.approx(alone, abs=1e-12)
    assert scores.prediction.tolist() == pipeline.predict(TEST).tolist()
    assert len(set(scores.probability)) > 10


def test_model_trained_on_array_takes_the_signatures_columns(tmp_path: Path) -> None:
    forest = RandomForestClassifier(15, random_state=1).fit(FRAME[["amt", "lat"]].to_numpy(), FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", forest, signature=signature("amt", "lat")))
    assert names(model) == ["amt", "lat"]
    assert model.predict(TEST[["amt", "lat"]]).prediction.sum() > 0


@pytest.mark.parametrize("value", ["94103", 94103.0])
def test_value_of_another_type_matches_its_category(tmp_path: Path, value: object) -> None:
    case = model_cases()["LightGBM of categories by scikit-learn"]()
    model = load(run_of(), case.save(tmp_path / "m"))
    probability = score(model, [json.dumps(payment(zip=one)).encode() for one in (94103, value, 6441)]).probability
    assert probability[0] == probability[1] != probability[2]


def test_warning_names_columns_of_unknown_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = FRAME[["amt"]].assign(velocity=1.0)
    load(run_of(), save_sklearn(tmp_path / "m", RandomForestClassifier(2).fit(frame, FRAUD)))
    assert "has no signature, and its columns velocity are not standard columns of a payment" in caplog.text


def test_model_without_column_names_raises_model_input_error(tmp_path: Path) -> None:
    forest = RandomForestClassifier(2).fit(FRAME[["amt"]].to_numpy(), FRAUD)
    with pytest.raises(ModelInputError, match="train it on a DataFrame, or log it with a signature"):
        load(run_of(), save_sklearn(tmp_path / "m", forest))


def test_model_without_probabilities_gives_labels_and_rejects_threshold(tmp_path: Path) -> None:
    machine = make_pipeline(StandardScaler(), LinearSVC()).fit(FRAME[NUMERIC], FRAUD)
    folder = save_sklearn(tmp_path / "m", machine)
    scores = load(run_of(), folder).predict(TEST[NUMERIC])
    assert scores.probability is None
    assert scores.prediction.tolist() == machine.predict(TEST[NUMERIC]).tolist()
    with pytest.raises(ModelError, match=r"threshold \(0.3\), but gives no probabilities"):
        load(run_of(threshold=0.3), folder)


def test_threshold_overrides_the_models_labels(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    probabilities = mlflow.sklearn.load_model(str(folder)).predict_proba(TEST[NUMERIC])[:, 1]
    scores = load(run_of(threshold=0.3), folder).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == (probabilities >= 0.3).astype(int).tolist()
    assert scores.prediction.tolist() != (probabilities > 0.5).astype(int).tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(2).fit(FRAME[NUMERIC], FRAUD + 1),
        RandomForestClassifier(2).fit(FRAME[NUMERIC], FRAME["category"]),
        RandomForestClassifier(2).fit(FRAME[NUMERIC], np.column_stack([FRAUD, FRAUD])),
    ],
)
def test_classes_other_than_0_and_1_raise_model_error(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ModelError, match="only classifiers of 0 and 1"):
        load(run_of(), save_sklearn(tmp_path / "m", model))


def test_forest_with_threads_gives_the_same_labels_as_without(tmp_path: Path) -> None:
    model = load(run_of(), save_seed_model(tmp_path / "m"))
    few, many = model.predict(TEST[NUMERIC][:999]), model.predict(TEST[NUMERIC])
    assert few.prediction.tolist() == many.prediction[:999].tolist()


class LargeAmounts(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Return labels, probabilities or a frame of both, depending on `form`."""

    def __init__(self, form: str) -> None:
        self.form = form

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        scaled = model_input["amt"].to_numpy() / 1000
        return {
            "labels": (scaled > 0.16).astype(int),
            "probabilities": scaled.clip(0, 1),
            "frame": pd.DataFrame({"prediction": (scaled > 0.16).astype(int), "probability": scaled.clip(0, 1)}),
        }[self.form]


@pytest.mark.parametrize("form", ["labels", "probabilities", "frame"])
def test_pyfunc_model_takes_the_signatures_columns_and_scores(tmp_path: Path, form: str) -> None:
    folder = save_pyfunc(tmp_path / "m", LargeAmounts(form), ["cc_num", "amt", "category"])
    model = load(run_of(), folder)
    assert [(column.name, column.kind) for column in model.input_columns] == [
        ("cc_num", "int64"),
        ("amt", "float64"),
        ("category", "text"),
    ]
    scores = model.predict(TEST[["cc_num", "amt", "category"]])
    limit = 0.5 if form == "probabilities" else 0.16
    assert scores.prediction.tolist() == (TEST["amt"] / 1000 > limit).astype(int).tolist()
    assert (scores.probability is None) == (form == "labels")


def test_pyfunc_model_without_a_signature_raises_model_input_error(tmp_path: Path) -> None:
    folder = save_pyfunc(tmp_path / "m", LargeAmounts("labels"), [])
    with pytest.raises(ModelInputError, match="which columns"):
        load(run_of(), folder)


def test_error_names_the_module_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing_module.py").write_text(
        "from sklearn.dummy import DummyClassifier\nclass Passing(DummyClassifier):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from passing_module import Passing  # type: ignore[import-not-found]

    folder = save_sklearn(tmp_path / "m", Passing().fit(FRAME[NUMERIC], FRAUD), serialization_format="pickle")
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "passing_module")
    with pytest.raises(ModelRequirementsError, match="'passing_module'"):
        load(run_of(), folder)


def test_error_of_damaged_model_names_its_scikit_learn_version(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    (folder / "model.pkl").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"UnpicklingError.*trained with scikit-learn 1"):
        load(run_of(), folder)


def test_error_names_unsupported_flavor(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {spark: {}}")
    with pytest.raises(ModelError, match="only spark"):
        load(run_of(), tmp_path)
