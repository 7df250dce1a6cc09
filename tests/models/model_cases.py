"""Models of each kind that users log, with the expected result: the score of a payment alone, or an error."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import mlflow.catboost
import mlflow.lightgbm
import mlflow.pyfunc
import mlflow.xgboost
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC, OneClassSVM

from tests.models.zoo import REQUIREMENTS, history, quiet, save_sklearn, seed_pipeline

NUMERIC = ["amt", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long"]
TEXTS = ["category", "gender", "zip", "amt"]
TYPES = {"category": "str", "gender": "str", "zip": "int64", "city_pop": "int64", "unix_time": "int64"}


def training_frame() -> tuple[pd.DataFrame, pd.Series]:
    """Return payments as pandas reads them from a CSV file, and their labels.

    Some texts are empty; most of these payments are fraud.
    """
    frame, fraud = history()
    rng = np.random.default_rng(3)
    frame["zip"] = rng.choice([6441, 10001, 94103], len(frame))
    empty = rng.random(len(frame)) < 0.15
    frame.loc[empty, "category"] = None
    frame.loc[empty & (rng.random(len(frame)) < 0.5), "gender"] = None
    fraud = ((fraud == 1) & (rng.random(len(frame)) < 0.9)) | (empty & (rng.random(len(frame)) < 0.8))
    fraud |= (frame["zip"] == 94103) & (rng.random(len(frame)) < 0.6)
    text = frame.to_csv(index=False)
    return pd.read_csv(io.StringIO(text)), fraud.astype(int)


FRAME, FRAUD = training_frame()


def payment_frame(payment: dict[str, Any], names: list[str]) -> pd.DataFrame:
    """Return the frame of one payment, with the types that pandas reads from a CSV file of payments."""
    data = {}
    for name in names:
        value, dtype = payment[name], TYPES.get(name, "float64")
        if dtype == "int64" and (value is None or value != int(value)):
            dtype = "float64"
        data[name] = pd.Series([np.nan if value is None else value], dtype=dtype)
    return pd.DataFrame(data)


ExpectedScore = Callable[[pd.DataFrame], tuple[int, float | None]]


@dataclass(frozen=True)
class ModelCase:
    """A saved model and its expected result.

    `expected_score` returns the label and probability of a frame of one payment with the columns `names`. Without it
    the model must be rejected, with an error that matches `expected_error`. `strict` is true if MLflow enforces the
    signature.
    """

    save: Callable[[Path], Path]
    names: list[str]
    expected_score: ExpectedScore | None = None
    expected_error: str = ""
    threshold: float | None = None
    strict: bool = False


def _classifier_score(model: Any) -> ExpectedScore:
    def expected_score(frame: pd.DataFrame) -> tuple[int, float | None]:
        if type(model) is catboost.CatBoost:
            probability = float(model.predict(frame, prediction_type="Probability")[0, 1])
            return int(probability > 0.5), probability
        probability = float(model.predict_proba(frame)[0, 1]) if hasattr(model, "predict_proba") else None
        return int(np.ravel(model.predict(frame))[0]), probability

    return expected_score


def classifier(model: Any, names: list[str], *, signature: bool = False) -> ModelCase:
    model.fit(FRAME[names], FRAUD)
    options = {"signature": _signature(names)} if signature else {}
    return ModelCase(lambda folder: save_sklearn(folder, model, **options), names, _classifier_score(model))


def _signature(names: list[str]) -> Any:
    with quiet():
        return infer_signature(FRAME[names], FRAUD)


def _save_native(flavor: Any, model: Any, names: list[str] = NUMERIC) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        with quiet():
            flavor.save_model(model, str(folder), signature=_signature(names), pip_requirements=REQUIREMENTS)
        return folder

    return save


def native_classifier(flavor: Any, model: Any) -> ModelCase:
    model.fit(FRAME[NUMERIC], FRAUD)
    return ModelCase(_save_native(flavor, model), NUMERIC, _classifier_score(model))


def booster_case(flavor: Any, model: Any, predict: Callable[[pd.DataFrame], Any], names: list[str]) -> ModelCase:
    def expected_score(frame: pd.DataFrame) -> tuple[int, float | None]:
        probability = float(predict(with_categories(frame))[0])
        return int(probability >= 0.5), probability

    return ModelCase(_save_native(flavor, model, names), names, expected_score)


def with_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its columns of text, and `zip`, as categories of the training frame."""
    names = [name for name in ("category", "gender", "zip") if name in frame]
    return frame.astype({name: FRAME[name].astype("category").dtype for name in names})


def classifier_of_categories(model: Any, flavor: Any = None) -> ModelCase:
    model.fit(with_categories(FRAME[TEXTS]), FRAUD)
    expected_score = _classifier_score(model)
    save = _save_native(flavor, model, TEXTS) if flavor else lambda folder: save_sklearn(folder, model)
    return ModelCase(save, TEXTS, lambda frame: expected_score(with_categories(frame)))


def rejected(
    model: Any,
    expected_error: str,
    *,
    labels: Any = FRAUD,
    names: list[str] = NUMERIC,
    frame: pd.DataFrame = FRAME,
    flavor: Any = None,
    **options: Any,
) -> ModelCase:
    model.fit(frame[names], labels, **options)
    if flavor is not None:
        return ModelCase(_save_native(flavor, model, names), names, expected_error=expected_error)
    return ModelCase(
        lambda folder: save_sklearn(folder, model, signature=_signature(names)), names, expected_error=expected_error
    )


class Function(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Return the result of a function of the frame."""

    def __init__(self, function: Callable[[pd.DataFrame], Any]) -> None:
        self.function = function

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return self.function(model_input)


def _probability(frame: pd.DataFrame) -> Any:
    """Return a probability of fraud that grows with the amount."""
    return (1 - np.exp(-frame["amt"] / 300)).to_numpy()


def _save_pyfunc(function: Callable[[pd.DataFrame], Any], example: Any = None) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        with quiet():
            mlflow.pyfunc.save_model(
                folder,
                python_model=Function(function),
                signature=_signature(TEXTS),
                input_example=example,
                pip_requirements=REQUIREMENTS,
            )
        return folder

    return save


def pyfunc(
    function: Callable[[pd.DataFrame], Any],
    *,
    has_probability: bool = True,
    has_labels: bool = False,
    limit: float = 0.5,
    label: Callable[[Any, pd.Series], Any] | None = None,
) -> ModelCase:
    def expected_score(frame: pd.DataFrame) -> tuple[int, float | None]:
        expected = float(_probability(frame)[0])
        if expected == expected:
            is_fraud = expected >= limit if label is None else label(_probability(frame), frame["zip"])[0]
            return int(is_fraud), expected if has_probability else None
        if not has_labels:
            raise ValueError("no prediction")
        return 0, None

    return ModelCase(_save_pyfunc(function), TEXTS, expected_score, strict=True)


def rejected_pyfunc(
    function: Callable[[pd.DataFrame], Any], expected_error: str, threshold: float | None = None, example: Any = None
) -> ModelCase:
    return ModelCase(_save_pyfunc(function, example=example), TEXTS, expected_error=expected_error, threshold=threshold)


def _label_by_segment(probability: Any, zip_code: pd.Series) -> Any:
    return (probability >= np.where(zip_code == 94103, 0.2, 0.6)).astype(int)


def _bare_catboost(loss: str) -> Any:
    return catboost.CatBoost(
        {"loss_function": loss, "iterations": 10, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    )


def _one_hot(missing: Any = None) -> Any:
    encode = OneHotEncoder(handle_unknown="ignore")
    texts = encode if missing is None else make_pipeline(missing, encode)
    columns = make_column_transformer((texts, ["category", "gender"]), (SimpleImputer(), ["amt"]))
    return make_pipeline(columns, LogisticRegression(max_iter=1000))


def _zip_as_text() -> Any:
    as_text = make_pipeline(FunctionTransformer(_to_text), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer((as_text, ["zip"]), (SimpleImputer(), ["amt"]))
    return make_pipeline(columns, LogisticRegression(max_iter=1000))


def _to_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(str)


def _ordinal() -> Any:
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((encode, ["category", "gender"]), ("passthrough", ["amt", "zip"]))
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20))


def _squared_error(labels: Any, margins: Any) -> tuple[Any, Any]:
    return margins - labels, np.ones_like(margins)


def _tree(**options: Any) -> Any:
    return RandomForestClassifier(9, random_state=1, **options)


class _AmountClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Label payments by their amount, whatever it was trained on."""

    def fit(self, X: pd.DataFrame, y: Any) -> _AmountClassifier:  # noqa: N803
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return (_probability(X) >= 0.5).astype(int)


class Percents(_AmountClassifier):
    """A classifier whose probabilities are percentages."""

    def predict_proba(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return 100 * np.column_stack([1 - _probability(X), _probability(X)])


class Swapped(_AmountClassifier):
    """A classifier whose predict_proba has the columns (fraud, genuine)."""

    def predict_proba(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return np.column_stack([_probability(X), 1 - _probability(X)])


def model_cases() -> dict[str, Callable[[], ModelCase]]:
    """Return functions that create the cases, by name: a case trains its model when a test needs it."""
    xgb = {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}
    lgb = {"n_estimators": 10, "verbose": -1, "n_jobs": 1}
    scored: dict[str, Callable[[], ModelCase]] = {
        "imbalanced-learn pipeline": lambda: classifier(seed_pipeline(), NUMERIC),
        "one-hot that ignores unknown texts": lambda: classifier(_one_hot(), ["category", "gender", "amt"]),
        "one-hot with a signature": lambda: classifier(_one_hot(), ["category", "gender", "amt"], signature=True),
        "constant imputer": lambda: classifier(
            _one_hot(SimpleImputer(strategy="constant", fill_value="none")), ["category", "gender", "amt"]
        ),
        "ordinal encoder and boosting": lambda: classifier(_ordinal(), TEXTS),
        "numbers as text": lambda: classifier(_zip_as_text(), ["zip", "amt"]),
        "numbers as text with a signature": lambda: classifier(_zip_as_text(), ["zip", "amt"], signature=True),
        "labels only": lambda: classifier(make_pipeline(SimpleImputer(), StandardScaler(), LinearSVC()), NUMERIC),
        "no nulls": lambda: classifier(make_pipeline(StandardScaler(), LogisticRegression()), NUMERIC),
        "calibrated": lambda: classifier(CalibratedClassifierCV(_tree(), cv=2), NUMERIC),
        "grid search": lambda: classifier(GridSearchCV(_tree(), {"max_depth": [2, 4]}, cv=2), NUMERIC),
        "tuned threshold": lambda: classifier(TunedThresholdClassifierCV(_tree(), cv=2), NUMERIC),
        "LightGBM by scikit-learn": lambda: classifier(lightgbm.LGBMClassifier(**lgb), NUMERIC),
        "XGBoost by scikit-learn": lambda: classifier(xgboost.XGBClassifier(**xgb), NUMERIC, signature=True),
        "LightGBM in a pipeline": lambda: classifier(
            make_pipeline(
                make_column_transformer((OrdinalEncoder(), ["category"]), ("passthrough", ["amt"])),
                lightgbm.LGBMClassifier(**lgb),
            ),
            ["category", "amt"],
        ),
        "LightGBM": lambda: native_classifier(mlflow.lightgbm, lightgbm.LGBMClassifier(**lgb)),
        "XGBoost": lambda: native_classifier(mlflow.xgboost, xgboost.XGBClassifier(**xgb)),
        "CatBoost": lambda: native_classifier(
            mlflow.catboost, catboost.CatBoostClassifier(10, thread_count=1, verbose=0, allow_writing_files=False)
        ),
        "LightGBM of categories": lambda: classifier_of_categories(lightgbm.LGBMClassifier(**lgb), mlflow.lightgbm),
        "LightGBM of categories by scikit-learn": lambda: classifier_of_categories(lightgbm.LGBMClassifier(**lgb)),
        "search over LightGBM of categories": lambda: classifier_of_categories(
            GridSearchCV(lightgbm.LGBMClassifier(**lgb), {"max_depth": [2]}, cv=2)
        ),
        "XGBoost of categories": lambda: classifier_of_categories(
            xgboost.XGBClassifier(enable_categorical=True, **xgb), mlflow.xgboost
        ),
        "XGBoost of categories by scikit-learn": lambda: classifier_of_categories(
            xgboost.XGBClassifier(enable_categorical=True, **xgb)
        ),
        "calibrated LightGBM of categories": lambda: classifier_of_categories(
            CalibratedClassifierCV(lightgbm.LGBMClassifier(**lgb), cv=2)
        ),
        "vote of XGBoost and LightGBM of categories": lambda: classifier_of_categories(
            VotingClassifier(
                [("x", xgboost.XGBClassifier(enable_categorical=True, **xgb)), ("l", lightgbm.LGBMClassifier(**lgb))],
                voting="soft",
            )
        ),
        "boosting of categories": lambda: classifier_of_categories(HistGradientBoostingClassifier(max_iter=10)),
        "LightGBM's Booster of categories": lambda: _lightgbm_booster({"objective": "binary"}, TEXTS),
        "XGBoost's Booster of categories": lambda: _xgboost_booster({"objective": "binary:logistic"}, TEXTS),
        "LightGBM's Booster": lambda: _lightgbm_booster({"objective": "binary"}),
        "XGBoost's Booster": lambda: _xgboost_booster({"objective": "binary:logistic"}),
        "pyfunc labels": lambda: pyfunc(
            lambda frame: (_probability(frame) >= 0.5).astype(int), has_probability=False, has_labels=True
        ),
        "pyfunc probabilities": lambda: pyfunc(_probability),
        "pyfunc list": lambda: pyfunc(lambda frame: _probability(frame).tolist()),
        "pyfunc two columns": lambda: pyfunc(
            lambda frame: np.column_stack([1 - _probability(frame), _probability(frame)])
        ),
        "pyfunc named columns, fraud first": lambda: pyfunc(
            lambda frame: pd.DataFrame({"fraud": _probability(frame), "genuine": 1 - _probability(frame)})
        ),
        "pyfunc label and probability": lambda: pyfunc(
            lambda frame: pd.DataFrame(
                {"prediction": (_probability(frame) >= 0.3).astype(int), "proba": _probability(frame)}
            ),
            has_labels=True,
            limit=0.3,
        ),
        "pyfunc labels by segment": lambda: pyfunc(
            lambda frame: pd.DataFrame(
                {
                    "prediction": _label_by_segment(_probability(frame), frame["zip"]),
                    "fraud_probability": _probability(frame),
                }
            ),
            label=_label_by_segment,
            has_labels=True,
        ),
        "pyfunc frame with added columns": lambda: pyfunc(
            lambda frame: frame.assign(
                fraud_probability=_probability(frame), prediction=(_probability(frame) >= 0.5).astype(int)
            ),
            has_labels=True,
        ),
        "pyfunc null among probabilities": lambda: pyfunc(
            lambda frame: [None if np.isnan(one) else one for one in _probability(frame)]
        ),
        "pyfunc frame without a name": lambda: pyfunc(lambda frame: pd.DataFrame(_probability(frame))),
        "bare CatBoost": lambda: native_classifier(mlflow.catboost, _bare_catboost("Logloss")),
        "pyfunc records": lambda: pyfunc(lambda frame: [{"fraud_probability": one} for one in _probability(frame)]),
        "pyfunc re-sorted series": lambda: pyfunc(
            lambda frame: pd.Series(_probability(frame), index=frame.index).sort_values(na_position="first")
        ),
        "pyfunc float labels": lambda: pyfunc(
            lambda frame: (_probability(frame) >= 0.5).astype(float), has_probability=False, has_labels=True
        ),
        "pyfunc text labels": lambda: pyfunc(
            lambda frame: ["1" if one >= 0.5 else "0" for one in _probability(frame)],
            has_probability=False,
            has_labels=True,
        ),
    }
    outlier, contract = "is an? outlier detector|outlier detector, which labels ordinary payments 1", "returned"
    errors: dict[str, Callable[[], ModelCase]] = {
        "XGBoost of numbers of categories": lambda: rejected(
            xgboost.XGBClassifier(enable_categorical=True, feature_types=["q", "c"], **xgb),
            "XGBClassifier with categorical columns whose categories are not stored",
            names=["amt", "zip"],
        ),
        "LightGBM of categories and of numbers as categories": lambda: rejected(
            lightgbm.LGBMClassifier(**lgb),
            "LGBMClassifier with categorical columns whose categories are not stored",
            names=["amt", "zip", "city_pop"],
            frame=FRAME.assign(zip=FRAME["zip"].astype("category")),
            categorical_feature=["city_pop"],
        ),
        "XGBoost of categories beyond ASCII": lambda: rejected(
            xgboost.XGBClassifier(enable_categorical=True, **xgb),
            "XGBClassifier with categorical columns whose categories are not stored",
            names=["amt", "category"],
            frame=FRAME.assign(
                category=("B\N{LATIN SMALL LETTER U WITH DIAERESIS}cher " + FRAME["category"]).astype("category")
            ),
        ),
        "LightGBM of ordered categories": lambda: rejected(
            lightgbm.LGBMClassifier(**lgb),
            "LGBMClassifier with categorical columns whose categories are not stored",
            names=["amt", "zip"],
            frame=FRAME.assign(zip=pd.Categorical(FRAME["zip"], ordered=True)),
        ),
        "isolation forest": lambda: rejected(IsolationForest(n_estimators=9), f"IsolationForest.*{outlier}"),
        "one-class SVM": lambda: rejected(OneClassSVM(), f"OneClassSVM.*{outlier}"),
        "outlier detector in a pipeline": lambda: rejected(
            make_pipeline(StandardScaler(), IsolationForest(n_estimators=9)), f"IsolationForest.*{outlier}"
        ),
        "local outlier factor": lambda: rejected(LocalOutlierFactor(novelty=True), outlier),
        "elliptic envelope": lambda: rejected(EllipticEnvelope(random_state=1), outlier, names=["amt", "lat"]),
        "regressor": lambda: rejected(LinearRegression(), "LinearRegression, a regressor"),
        "LightGBM regressor": lambda: rejected(lightgbm.LGBMRegressor(**lgb), "LGBMRegressor, a regressor"),
        "clusterer": lambda: rejected(KMeans(2, n_init=1), "KMeans, a clusterer"),
        "mixture": lambda: rejected(GaussianMixture(2), "GaussianMixture, a density estimator"),
        "labels 1 and 2": lambda: rejected(_tree(), "only classifiers of 0 and 1", labels=FRAUD + 1),
        "text labels": lambda: rejected(
            _tree(), "only classifiers of 0 and 1", labels=FRAUD.map({0: "genuine", 1: "fraud"})
        ),
        "XGBoost margins": lambda: rejected(
            xgboost.XGBClassifier(objective="binary:logitraw", **xgb), "binary:logitraw"
        ),
        "XGBoost custom objective": lambda: rejected(
            xgboost.XGBClassifier(objective=_squared_error, **xgb), "objective custom"
        ),
        "LightGBM custom objective": lambda: rejected(
            lightgbm.LGBMClassifier(objective=_squared_error, **lgb), "objective custom"
        ),
        "XGBoost's Booster of three classes": lambda: _rejected_booster(
            _xgboost_booster({"objective": "multi:softprob", "num_class": 3}), "of 3 classes"
        ),
        "LightGBM's Booster of three classes": lambda: _rejected_booster(
            _lightgbm_booster({"objective": "multiclass", "num_class": 3}), "of 3 classes"
        ),
        "bare CatBoost of numbers": lambda: rejected(_bare_catboost("RMSE"), "CatBoost", flavor=mlflow.catboost),
        "classifier with its columns swapped": lambda: rejected(Swapped(), "predict and predict_proba .* contradict"),
        "classifier with its columns swapped and a threshold": lambda: replace(
            rejected(Swapped(), "predict and predict_proba .* contradict"), threshold=0.3
        ),
        "pyfunc probability of genuine": lambda: rejected_pyfunc(
            lambda frame: 1 - _probability(frame) ** 40, "0.5 for nearly all"
        ),
        "pyfunc two columns, fraud first": lambda: rejected_pyfunc(
            lambda frame: np.column_stack([_probability(frame) ** 40, 1 - _probability(frame) ** 40]),
            "0.5 for nearly all",
        ),
        "pyfunc frame without names, fraud first": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame(np.column_stack([_probability(frame) ** 40, 1 - _probability(frame) ** 40])),
            "0.5 for nearly all",
        ),
        "pyfunc genuine, with a threshold": lambda: rejected_pyfunc(
            lambda frame: np.exp(-frame["amt"].fillna(0) / 5000), "0.5 for nearly all", threshold=0.97
        ),
        "pyfunc label of genuine beside its probability": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame(
                {"prediction": (_probability(frame) < 0.5) * 1, "fraud_probability": _probability(frame)}
            ),
            "contradict each other",
        ),
        "pyfunc text among probabilities": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame(
                {
                    "fraud": _probability(frame),
                    "genuine": [1 - one if one < 0.9 else "n/a" for one in _probability(frame)],
                }
            ),
            "not numbers",
        ),
        "pyfunc classes 1 and 2": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame({"prob_1": 1 - _probability(frame), "prob_2": _probability(frame)}),
            "whose names do not",
        ),
        "pyfunc label 1 for normal": lambda: rejected_pyfunc(
            lambda frame: (_probability(frame) < 0.97).astype(int), "label 1 for nearly all"
        ),
        "XGBoost's Booster of numbers": lambda: _rejected_booster(_xgboost_booster({}), "reg:squarederror"),
        "XGBoost's Booster of margins": lambda: _rejected_booster(
            _xgboost_booster({"objective": "binary:logitraw"}), "binary:logitraw"
        ),
        "LightGBM's Booster of numbers": lambda: _rejected_booster(
            _lightgbm_booster({"objective": "regression"}), "objective regression"
        ),
        "CatBoost of numbers": lambda: ModelCase(
            _save_native(
                mlflow.catboost,
                catboost.CatBoostRegressor(5, verbose=0, allow_writing_files=False).fit(FRAME[NUMERIC], FRAUD),
            ),
            NUMERIC,
            expected_error="CatBoostRegressor, a regressor",
        ),
        "pyfunc isolation forest": lambda: rejected_pyfunc(_isolation_forest(), "returned -1"),
        "pyfunc labels 1 and 2": lambda: rejected_pyfunc(
            lambda frame: 1 + (_probability(frame) >= 0.5).astype(int), "returned 2"
        ),
        "pyfunc margins": lambda: rejected_pyfunc(
            lambda frame: np.log(_probability(frame) / (1 - _probability(frame))), contract
        ),
        "pyfunc logits": lambda: rejected_pyfunc(
            lambda frame: np.column_stack([-_probability(frame), _probability(frame)]), contract
        ),
        "pyfunc two columns that do not add up to 1": lambda: rejected_pyfunc(
            lambda frame: np.column_stack([_probability(frame) / 3, _probability(frame)]), "add up to"
        ),
        "pyfunc percent": lambda: rejected_pyfunc(lambda frame: 100 * _probability(frame), contract),
        "pyfunc risk score": lambda: rejected_pyfunc(lambda frame: (100 * _probability(frame)).round(), contract),
        "pyfunc unknown columns": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame({"a": _probability(frame), "b": 1 - _probability(frame)}),
            "columns a, b, whose names do not",
        ),
        "pyfunc genuine only": lambda: rejected_pyfunc(
            lambda frame: pd.DataFrame({"genuine": 1 - _probability(frame)}), "columns genuine, whose names do not"
        ),
        "pyfunc label and score with a threshold": lambda: rejected_pyfunc(
            _confidence("score"), "label beside score", 0.3
        ),
        "pyfunc label and confidence": lambda: rejected_pyfunc(_confidence("probability"), "contradict each other"),
        "pyfunc no prediction at all": lambda: rejected_pyfunc(
            lambda frame: np.full(len(frame), np.nan), "scored none"
        ),
        "pyfunc no prediction but for its example": lambda: rejected_pyfunc(
            lambda frame: np.where(frame["amt"] < 1, 0.25, np.nan),
            "neither label nor probability",
            example=FRAME[TEXTS].iloc[:1].assign(amt=0.5),
        ),
        "pyfunc score alone": lambda: rejected_pyfunc(
            lambda frame: _confidence("score")(frame)[["score"]], "columns score, whose names"
        ),
        "pyfunc all fraud": lambda: rejected_pyfunc(
            lambda frame: np.ones(len(frame), dtype=int), "label 1 for nearly all"
        ),
        "classifier of percents": lambda: rejected(Percents(), "returned"),
        "margins in a vote": lambda: rejected(
            VotingClassifier([("a", xgboost.XGBClassifier(objective="binary:logitraw", **xgb))], voting="soft"),
            "returned",
        ),
        "pyfunc too few": lambda: rejected_pyfunc(lambda frame: _probability(frame)[:-1], "shape|rows|for 1 payments"),
        "pyfunc one number": lambda: rejected_pyfunc(lambda frame: 0.5, "shape"),
        "pyfunc tuple": lambda: rejected_pyfunc(lambda frame: (_probability(frame), _probability(frame)), "a tuple"),
        "pyfunc index of its own": lambda: rejected_pyfunc(
            lambda frame: pd.Series(_probability(frame), index=[f"k{row}" for row in frame.index]),
            "index differs from its input",
        ),
        "pyfunc that depends on the other rows": lambda: rejected_pyfunc(
            lambda frame: 1 / (1 + np.exp(frame["amt"].mean() - frame["amt"].to_numpy())),
            "score in another batch",
        ),
        "pyfunc sorted without an index": lambda: rejected_pyfunc(
            lambda frame: np.sort(_probability(frame)), "score in another batch"
        ),
    }
    return scored | errors


def _confidence(name: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a model whose output is a label, and the probability of that label in the column `name`."""

    def predict(frame: pd.DataFrame) -> pd.DataFrame:
        fraud = _probability(frame)
        return pd.DataFrame({"label": (fraud >= 0.5).astype(int), name: np.maximum(fraud, 1 - fraud)})

    return predict


def _isolation_forest() -> Callable[[pd.DataFrame], Any]:
    forest = IsolationForest(n_estimators=20, random_state=1, contamination=0.05).fit(FRAME[["amt", "zip"]])
    return lambda frame: forest.predict(frame[["amt", "zip"]].fillna(0))


def _xgboost_booster(params: dict[str, Any], names: list[str] = NUMERIC) -> ModelCase:
    def matrix(frame: pd.DataFrame, fraud: Any = None) -> Any:
        return xgboost.DMatrix(frame, fraud, enable_categorical=True)

    model = xgboost.train({"nthread": 1, **params}, matrix(with_categories(FRAME[names]), FRAUD), 10)
    return booster_case(mlflow.xgboost, model, lambda frame: model.predict(matrix(frame)), names)


def _lightgbm_booster(params: dict[str, Any], names: list[str] = NUMERIC) -> ModelCase:
    data = lightgbm.Dataset(with_categories(FRAME[names]), FRAUD)
    model = lightgbm.train({"verbose": -1, "num_threads": 1, **params}, data, 10)
    return booster_case(mlflow.lightgbm, model, model.predict, names)


def _rejected_booster(case: ModelCase, expected_error: str) -> ModelCase:
    return ModelCase(case.save, case.names, expected_error=expected_error)


def without_warnings(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
