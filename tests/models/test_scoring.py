from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import ColSpec, Schema
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from include.errors import ModelError, ModelInputError
from include.models.load import LoadedModel, load
from include.models.scoring import ScoringResult, score
from include.payments.columns import COLUMNS
from tests.models.zoo import NUMERIC, history, payment, quiet, run_of, save_pyfunc, save_sklearn, signature

FRAME, FRAUD = history()


def to_json(payments: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(each).encode() for each in payments]


def oracle(bare: Any, names: list[str], each: dict[str, Any]) -> int | None:
    """Return the bare model's prediction for a frame of one row, None if it raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frame = pd.DataFrame([each])
            return int(bare.predict(frame[[name for name in names if name in frame]])[0])
        except Exception:
            return None


def assert_predictions(scored: ScoringResult, expected: list[int | None]) -> None:
    assert scored.prediction.tolist() == [-1 if each is None else each for each in expected]
    assert set(scored.refusals) == {row for row, each in enumerate(expected) if each is None}
    assert np.isnan(scored.probability[scored.prediction < 0]).all()


@pytest.fixture(scope="module")
def seed(seed_folder: Path) -> LoadedModel:
    return load(run_of(), seed_folder)


@pytest.fixture(scope="module")
def bare(seed_folder: Path) -> Any:
    return mlflow.sklearn.load_model(str(seed_folder))


@pytest.fixture(scope="module")
def texts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts and numbers that was trained on more columns than it uses."""
    encode = make_column_transformer((OneHotEncoder(), ["category", "gender"]), (StandardScaler(), ["amt"]))
    pipeline = make_pipeline(encode, RandomForestClassifier(9, random_state=1))
    pipeline.fit(FRAME[["job", "category", "gender", "amt", "zip"]], FRAUD)
    return save_sklearn(tmp_path_factory.mktemp("texts") / "m", pipeline)


def test_many_payments_score_like_each_alone(seed: LoadedModel, bare: Any) -> None:
    payments = [{**payment(), **each} for each in history(1200, seed=9)[0].to_dict("records")]
    scored = score(seed, to_json(payments))
    assert scored.prediction.tolist() == bare.predict(pd.DataFrame(payments)[NUMERIC]).tolist()
    assert scored.refusals == {}
    for row in range(0, 1200, 60):
        assert scored.prediction[row] == oracle(bare, NUMERIC, payments[row])


ANY_VALUE = st.one_of(
    st.integers(-(10**6), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
    st.sampled_from(["16.18", " 7 ", "1e3", "", "abc", "1_000", "nan", "inf", "-inf", "\uff10"]),
    st.sampled_from([None, True, False, [1], {"a": 1}, ..., 1e300, 2**63, 2**64, 10**30, 10**400, -0.0]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.sampled_from([*NUMERIC, "cc_num", "job", "more"]), ANY_VALUE, max_size=3), max_size=8)
)
def test_invalid_payments_score_like_each_alone(seed: LoadedModel, bare: Any, changes: list[dict[str, Any]]) -> None:
    payments = [payment(), *(payment(**each) for each in changes)]
    assert_predictions(score(seed, to_json(payments)), [oracle(bare, NUMERIC, each) for each in payments])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "category": st.sampled_from(["home", "travel", "news", None, 5, ...]),
                "amt": ANY_VALUE,
                "zip": ANY_VALUE,
            },
        ),
        max_size=8,
    )
)
def test_texts_score_like_each_alone(texts_folder: Path, changes: list[dict[str, Any]]) -> None:
    bare = mlflow.sklearn.load_model(str(texts_folder))
    payments = [payment(), *(payment(**each) for each in changes)]
    names = ["job", "category", "gender", "amt", "zip"]
    assert_predictions(
        score(load(run_of(), texts_folder), to_json(payments)), [oracle(bare, names, each) for each in payments]
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amt": ...}, "missing_column: the payment lacks amt, which the model needs"),
        ({"amt": "much"}, "bad_value: amt: number expected, text found"),
        ({"lat": 1e300}, "bad_value: lat: number expected, a number too large found"),
        ({"unix_time": []}, "bad_value: unix_time: whole number expected, another value found"),
        ({"amt": 3e38, "lat": -3e38}, None),
    ],
)
def test_refusal_names_the_column_only(seed: LoadedModel, changes: dict[str, Any], reason: str | None) -> None:
    scored = score(seed, to_json([payment(), payment(**changes)]))
    if reason is not None:
        assert {row: str(refusal) for row, refusal in scored.refusals.items()} == {1: reason}


def test_column_that_the_model_does_not_need_may_be_missing(seed: LoadedModel, texts_folder: Path) -> None:
    few = {name: value for name, value in payment().items() if name in NUMERIC}
    assert score(seed, to_json([few])).refusals == {}
    scored = score(load(run_of(), texts_folder), to_json([payment(job=..., zip=...), payment(gender=...), payment()]))
    assert {row: refusal.sentence for row, refusal in scored.refusals.items()} == {
        1: "the payment lacks gender, which the model needs"
    }


def test_old_payments_with_current_time_are_scored(seed: LoadedModel) -> None:
    now = payment(unix_time=1730390185811)
    old = payment(unix_time=..., trans_date_trans_time=..., current_time=1730390185811)
    scored = score(seed, to_json([now, old]))
    assert scored.probability[0] == scored.probability[1]


def test_invalid_payment_alone_is_refused_not_the_model(seed: LoadedModel) -> None:
    scored = score(seed, to_json([payment(amt="much")]))
    assert list(scored.refusals) == [0]


def test_nothing_to_score(seed: LoadedModel) -> None:
    assert score(seed, []).prediction.tolist() == []


class Counting:
    """A model that counts the calls of `predict`."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, frame: pd.DataFrame) -> Any:
        self.calls += 1
        return self.model.predict(frame)


def test_refused_payments_are_found_in_few_calls(texts_folder: Path) -> None:
    model = Counting(load(run_of(), texts_folder))
    payments = [payment(category="unknown" if row in (5, 700, 701) else "home") for row in range(1000)]
    scored = score(model, to_json(payments))  # type: ignore[arg-type]
    assert {row: str(each) for row, each in scored.refusals.items()} == dict.fromkeys(
        (5, 700, 701), "model_refused: the model raised ValueError for this payment"
    )
    assert model.calls < 100


def test_many_refused_payments_take_few_calls(texts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.models.scoring._MAX_TRIES", 100)
    model = Counting(load(run_of(), texts_folder))
    payments = [payment(category="home" if row < 200 else f"unknown {row}") for row in range(4000)]
    scored = score(model, to_json(payments))  # type: ignore[arg-type]
    assert set(scored.refusals) == set(range(200, 4000))
    assert model.calls < 1000


def test_payment_without_a_column_that_the_batch_has_is_refused(tmp_path: Path) -> None:
    history_with_age = FRAME[["amt"]].assign(device_age=FRAME["amt"] * 2)
    fitted = RandomForestClassifier(5, random_state=1).fit(history_with_age, FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", fitted))
    payments = to_json([payment()] * 30)
    with pytest.raises(ModelInputError, match="device_age"):
        score(model, payments)
    scored = score(model, payments, columns=[*COLUMNS, "device_age"])
    assert {each.code for each in scored.refusals.values()} == {"missing_column"}
    assert len(scored.refusals) == 30


def test_many_payments_without_a_required_column_take_few_calls(seed: LoadedModel) -> None:
    model = Counting(seed)
    scored = score(model, to_json([payment(amt=...)] * 5000))  # type: ignore[arg-type]
    assert len(scored.refusals) == 5000
    assert model.calls < 10


class Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that raises an error for amounts from `limit` up, as after an update of a library."""

    def __init__(self, limit: float = 0) -> None:
        self.limit = limit

    def fit(self, X: pd.DataFrame, y: Any) -> Broken:  # noqa: N803
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, X: pd.DataFrame) -> Any:  # noqa: N803
        if (X["amt"] >= self.limit).any():
            raise AttributeError(f"no attribute for {X['amt'].iloc[0]}")
        return np.ones(len(X), dtype=int)


def test_model_that_scores_nothing_raises_model_error(tmp_path: Path) -> None:
    model = Counting(load(run_of(), save_sklearn(tmp_path / "m", Broken().fit(FRAME[["amt"]], FRAUD))))
    for count in (1, 5000):
        with pytest.raises(
            ModelError, match=f"scored none of {count} payments .AttributeError.*the fault is the model's"
        ) as caught:
            score(model, to_json([payment()] * count))  # type: ignore[arg-type]
        assert "16.18" not in str(caught.value)
        # The error text for the made-up payment is shown.
        assert "made-up ordinary payment (AttributeError: no attribute for 21.5)" in str(caught.value)
    assert model.calls < 100


def test_mostly_invalid_batch_does_not_raise_model_error(texts_folder: Path) -> None:
    """This holds although the model, which knows few categories, cannot score the ordinary payment."""
    payments = [payment(category=None)] * 40 + [payment(), payment(category="unknown")]
    scored = score(load(run_of(), texts_folder), to_json(payments))
    assert scored.prediction.tolist() == [-1] * 40 + [0, -1]


def test_input_example_proves_that_the_model_works(tmp_path: Path) -> None:
    """This model raises an error for the ordinary payment, but not for its example."""
    broken = Broken(limit=10).fit(FRAME[["amt"]], FRAUD)
    example = pd.DataFrame({"amt": [1.5]})
    folder = save_sklearn(tmp_path / "m", broken, signature=signature("amt"), input_example=example)
    assert len(score(load(run_of(), folder), to_json([payment()] * 3)).refusals) == 3


def test_required_column_that_no_payment_has_raises_model_error(tmp_path: Path) -> None:
    frame = FRAME[["amt", "lat"]].rename(columns={"lat": "device"})
    forest = RandomForestClassifier(3).fit(frame, FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", forest, input_example=frame.iloc[:1]))
    with pytest.raises(ModelInputError, match="no payment of this batch has: device"):
        score(model, to_json([payment(), payment(amt=...)]))
    assert score(model, to_json([payment(), payment(device=1.5)])).refusals[0].code == "missing_column"


def test_training_column_that_the_model_does_not_use_may_be_missing(tmp_path: Path) -> None:
    frame = FRAME[["amt", "lat"]].assign(**{"Unnamed: 0": 1})
    pipeline = make_pipeline(make_column_transformer(("passthrough", ["amt", "lat"])), RandomForestClassifier(3))
    example = frame.iloc[:1]
    folder = save_sklearn(tmp_path / "m", pipeline.fit(frame, FRAUD), input_example=example)
    scored = score(load(run_of(), folder), to_json([payment(), payment(amt=...)]))
    assert {row: each.sentence for row, each in scored.refusals.items()} == {
        1: "the payment lacks amt, which the model needs"
    }
    assert score(load(run_of(), folder), to_json([payment(amt=...)])).refusals[0].code == "missing_column"


class Shares(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        if (model_input["category"] == "unknown").any():
            raise KeyError("unknown")
        return model_input["amt"].to_numpy() / 1000 + (model_input["cc_num"] % 2).to_numpy() / 100_000


@pytest.mark.parametrize(
    ("changes", "prediction"),
    [
        ({}, 0), ({"amt": 700}, 1), ({"amt": "700"}, 1), ({"cc_num": "377895991033232"}, 0), ({"category": 5}, 0),
        ({"amt": None}, "bad_value"), ({"amt": "x"}, "bad_value"),
        ({"cc_num": 10**19}, "bad_value"), ({"cc_num": None}, "bad_value"), ({"category": "unknown"}, "model_refused"),
        ({"category": ...}, "missing_column"), ({"job": ...}, 0),
    ],
)  # fmt: skip
def test_pyfunc_model_gets_the_types_of_its_signature(
    shares: LoadedModel, changes: dict[str, Any], prediction: int | str
) -> None:
    scored = score(shares, to_json([payment(amt=600), payment(**changes), payment()]))
    assert scored.prediction[[0, 2]].tolist() == [1, 0]
    assert scored.probability[0] == pytest.approx(0.6)
    found = scored.refusals[1].code if 1 in scored.refusals else int(scored.prediction[1])
    assert found == prediction


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(run_of(), save_pyfunc(tmp_path_factory.mktemp("shares") / "m", Shares(), ["cc_num", "amt", "category"]))


def test_output_that_no_payment_can_cause_raises_model_error(shares: LoadedModel) -> None:
    """One such output is enough: no payment becomes a dead letter, and all of them wait."""
    with pytest.raises(ModelError, match=r"returned 9: .*Choose another model.*The payments wait"):
        score(shares, to_json([payment(amt=60), payment(amt=9000), payment(amt=None)]))


class Margins(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["amt"].to_numpy() / 100 - 2


@pytest.mark.parametrize("example", [None, pd.DataFrame({"amt": [12.5]})])
def test_output_that_only_looks_like_a_probability_raises_model_error(
    tmp_path: Path, example: pd.DataFrame | None
) -> None:
    """The batch alone does not show it, but made-up payments or the stored example do."""
    with quiet():
        mlflow.pyfunc.save_model(
            tmp_path / "m", python_model=Margins(), signature=signature("amt"), input_example=example,
            pip_requirements=["scikit-learn"],
        )  # fmt: skip
    with pytest.raises(ModelError, match=r"returned -1.*stored example" if example is not None else "made-up payment"):
        score(load(run_of(), tmp_path / "m"), to_json([payment(amt=250)]))


class Relative(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return (model_input["amt"] / model_input["amt"].max()).to_numpy()


def test_rows_of_small_frames_are_rescored_too(tmp_path: Path) -> None:
    """Two rows that agree by chance are not enough: payments with a null have a frame of their own."""
    with quiet():
        mlflow.pyfunc.save_model(
            tmp_path / "m", python_model=Relative(), signature=signature("amt", "category"),
            pip_requirements=["scikit-learn"],
        )  # fmt: skip
    payments = [payment(amt=900), payment(amt=900), payment(amt=10, category=None), payment(amt=5, category=None)]
    with pytest.raises(ModelError, match=r"another score|another batch"):
        score(load(run_of(), tmp_path / "m"), to_json(payments))


def test_payment_with_null_and_no_prediction_is_refused(shares: LoadedModel) -> None:
    """NaN for a null is the payment's fault, also if the batch has no other payment."""
    assert score(shares, to_json([payment(amt=None)])).refusals[0].code == "bad_value"


@pytest.mark.parametrize("required", [True, False])
def test_null_in_optional_column_of_whole_numbers_is_scored(tmp_path: Path, required: bool) -> None:
    columns = Schema([ColSpec("double", "amt"), ColSpec("long", "zip", required=required)])
    with quiet():
        mlflow.pyfunc.save_model(
            tmp_path / "m", python_model=NoZip(), signature=ModelSignature(columns), pip_requirements=["scikit-learn"]
        )
    scored = score(load(run_of(), tmp_path / "m"), to_json([payment(), payment(zip=None), payment(zip=...)]))
    if required:
        assert [scored.refusals[row].code for row in (1, 2)] == ["bad_value", "missing_column"]
    else:
        assert scored.probability.tolist() == [0.25, 0.75, 0.5]


class NoZip(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        if "zip" not in model_input:
            return np.full(len(model_input), 0.5)
        return np.where(model_input["zip"].isna(), 0.75, 0.25)


def test_null_in_column_of_unknown_type_is_tried_as_text_and_as_number(tmp_path: Path) -> None:
    """Neither a signature nor the payment contract gives the type."""
    frame = FRAME[["amt"]].assign(device=FRAME["lat"])
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(frame, FRAUD)
    scored = score(load(run_of(), save_sklearn(tmp_path / "m", model)), to_json([payment(device=None)]))
    assert scored.refusals == {}
    alone = pd.DataFrame({"amt": [16.18], "device": [np.nan]})
    assert scored.probability[0] == pytest.approx(model.predict_proba(alone)[0, 1])


@pytest.mark.parametrize(
    "make", [lambda: payment(first="Zebulon", amt="Zebulon"), lambda: payment(amt=1e300, first="Zebulon")]
)
def test_log_and_refusal_hold_no_payment_data(
    seed: LoadedModel, caplog: pytest.LogCaptureFixture, make: Callable[[], dict[str, Any]]
) -> None:
    with caplog.at_level("DEBUG"):
        scored = score(seed, to_json([make(), payment()]))
    assert "refused 1 payments" in caplog.text
    for text in (caplog.text, str(scored.refusals[0])):
        assert "Zebulon" not in text
        assert "e+300" not in text


def test_value_of_another_type_does_not_change_other_payments_times(tmp_path: Path) -> None:
    pipeline = make_pipeline(FunctionTransformer(hours), LogisticRegression()).fit(TIMED, FRAUD)
    folder = save_sklearn(tmp_path / "m", pipeline, signature=infer(TIMED))
    times = ["2024-10-31 03:56:25", "2024-10-31 15:56:25", [1], {"a": 1}]
    payments = [payment(trans_date_trans_time=time) for time in times]
    scored = score(load(run_of(), folder), to_json(payments))
    alone = [score(load(run_of(), folder), to_json([each])).probability[0] for each in payments[:2]]
    assert scored.probability[:2].tolist() == pytest.approx(alone)
    assert set(scored.refusals) == {2, 3}


def hours(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(trans_date_trans_time=frame["trans_date_trans_time"].dt.hour)


TIMED = FRAME[["amt"]].assign(trans_date_trans_time=pd.to_datetime(FRAME["unix_time"], unit="ms"))


def infer(frame: pd.DataFrame) -> ModelSignature:
    with quiet():
        return infer_signature(frame, FRAUD)


def test_model_that_changes_its_frame_gets_a_copy_per_call(tmp_path: Path) -> None:
    """So `predict_proba` and `predict` get the same values."""
    pipeline = make_pipeline(FunctionTransformer(logarithm), LogisticRegression()).fit(FRAME[["amt"]].copy(), FRAUD)
    model = load(run_of(), save_sklearn(tmp_path / "m", pipeline))
    for amounts in ([300.0], [20.0, 300.0, 150.0]):
        scored = score(model, to_json([payment(amt=amount) for amount in amounts]))
        expected = [int(pipeline.predict(pd.DataFrame({"amt": [amount]}))[0]) for amount in amounts]
        assert scored.prediction.tolist() == expected


def logarithm(frame: pd.DataFrame) -> pd.DataFrame:
    frame["amt"] = np.log1p(frame["amt"])
    return frame


def test_model_with_columns_by_position_does_not_score_without_one(tmp_path: Path) -> None:
    """The model would take the next column for the missing one."""
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(FRAME[NUMERIC].to_numpy(), FRAUD), 5)
    with quiet():
        mlflow.xgboost.save_model(booster, tmp_path / "m", signature=signature(*NUMERIC), pip_requirements=["xgboost"])
    scored = score(load(run_of(), tmp_path / "m"), to_json([payment(), payment(amt=...)]))
    assert {row: refusal.code for row, refusal in scored.refusals.items()} == {1: "missing_column"}
    assert scored.probability[0] == pytest.approx(booster.predict(xgboost.DMatrix(frame_of(payment())))[0])


def frame_of(each: dict[str, Any]) -> Any:
    return pd.DataFrame([each])[NUMERIC].to_numpy()


def test_made_up_payments_keep_whole_numbers_plausible(tmp_path: Path) -> None:
    with quiet():
        mlflow.pyfunc.save_model(
            tmp_path / "m", python_model=Counted(), pip_requirements=["scikit-learn"],
            signature=infer(FRAME[["amt"]].assign(recent=3)),
        )  # fmt: skip
    assert score(load(run_of(), tmp_path / "m"), to_json([payment(recent=3)])).probability.tolist() == [0.3]


class Counted(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return (model_input["recent"] / 10).to_numpy()
