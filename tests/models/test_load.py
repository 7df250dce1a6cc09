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


def test_the_seed_projects_form_takes_the_numeric_columns(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    model = load(run_of(), folder)
    assert names(model) == NUMERIC
    bare = mlflow.sklearn.load_model(str(folder))
    scores = model.predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == bare.predict(TEST[NUMERIC]).tolist()
    assert scores.probability is not None
    assert np.array_equal(scores.probability, bare.predict_proba(TEST[NUMERIC])[:, 1])
    assert 0 < scores.prediction.sum() < len(TEST)


def test_skops_with_its_stored_trusted_types(tmp_path: Path) -> None:
    pipeline = seed_pipeline()
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))
    folder = save_sklearn(tmp_path / "m", pipeline, serialization_format="skops", skops_trusted_types=trusted)
    scores = load(run_of(), folder).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == pipeline.predict(TEST[NUMERIC]).tolist()


@pytest.mark.parametrize("write", [str, float, bool, lambda label: f"{label}.0"])
def test_labels_of_any_type(tmp_path: Path, write: Any) -> None:
    forest = RandomForestClassifier(15, random_state=1).fit(FRAME[NUMERIC], [write(label) for label in FRAUD])
    scores = load(run_of(), save_sklearn(tmp_path / "m", forest)).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == [int(label == write(1)) for label in forest.predict(TEST[NUMERIC])]
    assert scores.probability is not None
    assert np.array_equal(scores.probability, forest.predict_proba(TEST[NUMERIC])[:, 1])


def test_a_model_of_texts_and_numbers_without_a_signature(tmp_path: Path) -> None:
    encode = make_column_transformer((OneHotEncoder(), ["category"]), (StandardScaler(), ["amt"]))
    pipeline = make_pipeline(encode, LogisticRegression()).fit(FRAME[["category", "amt"]], FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", pipeline))
    assert names(model) == ["category", "amt"]
    scores = model.predict(TEST[["category", "amt"]])
    assert scores.prediction.tolist() == pipeline.predict(TEST[["category", "amt"]]).tolist()


@pytest.mark.parametrize("sparse", [True, False])
def test_a_forest_answers_each_row_as_it_would_alone(tmp_path: Path, sparse: bool) -> None:
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


def test_without_names_of_its_own_a_model_takes_its_signatures_inputs(tmp_path: Path) -> None:
    forest = RandomForestClassifier(15, random_state=1).fit(FRAME[["amt", "lat"]].to_numpy(), FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", forest, signature=signature("amt", "lat")))
    assert names(model) == ["amt", "lat"]
    assert model.predict(TEST[["amt", "lat"]]).prediction.sum() > 0


@pytest.mark.parametrize("value", ["94103", 94103.0])
def test_a_value_of_another_type_is_the_category_that_it_stands_for(tmp_path: Path, value: object) -> None:
    case = model_cases()["LightGBM of categories by scikit-learn"]()
    model = load(run_of(), case.save(tmp_path / "m"))
    given = score(model, [json.dumps(payment(zip=one)).encode() for one in (94103, value, 6441)]).probability
    assert given[0] == given[1] != given[2]


def test_columns_whose_type_nothing_says_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = FRAME[["amt"]].assign(velocity=1.0)
    load(run_of(), save_sklearn(tmp_path / "m", RandomForestClassifier(2).fit(frame, FRAUD)))
    assert "has no signature, and its columns velocity are not standard columns of a payment" in caplog.text


def test_a_model_that_names_no_columns_is_refused(tmp_path: Path) -> None:
    forest = RandomForestClassifier(2).fit(FRAME[["amt"]].to_numpy(), FRAUD)
    with pytest.raises(ModelInputError, match="train it on a DataFrame, or log it with a signature"):
        load(run_of(), save_sklearn(tmp_path / "m", forest))


def test_a_model_without_probabilities_gives_labels(tmp_path: Path) -> None:
    machine = make_pipeline(StandardScaler(), LinearSVC()).fit(FRAME[NUMERIC], FRAUD)
    folder = save_sklearn(tmp_path / "m", machine)
    scores = load(run_of(), folder).predict(TEST[NUMERIC])
    assert scores.probability is None
    assert scores.prediction.tolist() == machine.predict(TEST[NUMERIC]).tolist()
    with pytest.raises(ModelError, match=r"threshold \(0.3\), but gives no probabilities"):
        load(run_of(threshold=0.3), folder)


def test_a_threshold_decides_instead_of_the_model(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    shares = mlflow.sklearn.load_model(str(folder)).predict_proba(TEST[NUMERIC])[:, 1]
    scores = load(run_of(threshold=0.3), folder).predict(TEST[NUMERIC])
    assert scores.prediction.tolist() == (shares >= 0.3).astype(int).tolist()
    assert scores.prediction.tolist() != (shares > 0.5).astype(int).tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(2).fit(FRAME[NUMERIC], FRAUD + 1),
        RandomForestClassifier(2).fit(FRAME[NUMERIC], FRAME["category"]),
        RandomForestClassifier(2).fit(FRAME[NUMERIC], np.column_stack([FRAUD, FRAUD])),
    ],
)
def test_other_classes_than_fraud_or_not_are_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ModelError, match="only classifiers of 0 and 1"):
        load(run_of(), save_sklearn(tmp_path / "m", model))


def test_a_forest_uses_threads_only_where_they_pay(tmp_path: Path) -> None:
    model = load(run_of(), save_seed_model(tmp_path / "m"))
    few, many = model.predict(TEST[NUMERIC][:999]), model.predict(TEST[NUMERIC])
    assert few.prediction.tolist() == many.prediction[:999].tolist()


class LargeAmounts(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """What it returns depends on `form`."""

    def __init__(self, form: str) -> None:
        self.form = form

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        share = model_input["amt"].to_numpy() / 1000
        return {
            "labels": (share > 0.16).astype(int),
            "probabilities": share.clip(0, 1),
            "frame": pd.DataFrame({"prediction": (share > 0.16).astype(int), "probability": share.clip(0, 1)}),
        }[self.form]


@pytest.mark.parametrize("form", ["labels", "probabilities", "frame"])
def test_a_pyfunc_model(tmp_path: Path, form: str) -> None:
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


def test_a_pyfunc_model_without_a_signature_is_refused(tmp_path: Path) -> None:
    folder = save_pyfunc(tmp_path / "m", LargeAmounts("labels"), [])
    with pytest.raises(ModelInputError, match="which columns"):
        load(run_of(), folder)


def test_a_model_whose_module_is_not_here_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_model_that_cannot_be_loaded_says_what_it_was_trained_with(tmp_path: Path) -> None:
    folder = save_seed_model(tmp_path / "m")
    (folder / "model.pkl").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"UnpicklingError.*trained with scikit-learn 1"):
        load(run_of(), folder)


def test_a_flavor_that_is_neither_is_named(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {spark: {}}")
    with pytest.raises(ModelError, match="only spark"):
        load(run_of(), tmp_path)
