"""Reject estimators that are not classifiers, and classifiers whose output is not a probability.

An outlier detector labels ordinary payments 1, a regressor or a custom objective returns any number: by chance their
output looks like labels and probabilities. So they are rejected by their type when the model is loaded.
"""

from __future__ import annotations

import json
from typing import Any

from include.errors import ModelError
from include.models.model_run import ModelRun

_UNSUPPORTED_TYPES = {
    "outlier_detector": "an outlier detector, which labels ordinary payments 1 and outliers -1",
    "regressor": "a regressor, whose numbers are not probabilities",
    "clusterer": "a clusterer, whose numbers name clusters",
    "density_estimator": "a density estimator, whose numbers name components",
    "transformer": "a transformer, which predicts nothing",
}
_REMEDY = "Log a classifier of 0 and 1, or a pyfunc model that returns the probability of fraud"
# Objectives whose output is a probability, or the probabilities of both classes.
_XGBOOST_OBJECTIVES = frozenset(("binary:logistic", "reg:logistic", "multi:softprob"))
_XGBOOST_LABEL_OBJECTIVES = frozenset(("binary:hinge",))
_LIGHTGBM_OBJECTIVES = frozenset(
    ("binary", "cross_entropy", "xentropy", "multiclass", "softmax", "multiclassova", "ova", "ovr")
)
_CATBOOST_OBJECTIVES = frozenset(("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "Focal"))


def final_estimator(model: Any) -> Any:
    """Return the estimator that predicts: a pipeline's last step, a search's best estimator, or the model itself."""
    while True:
        if isinstance(getattr(model, "steps", None), list):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return model


def require_classifier(model: Any, run: ModelRun) -> None:
    """Raise ModelError for an estimator that is known not to be a classifier, or whose output is not a probability."""
    final = final_estimator(model)
    name = type(final).__name__
    kind = _estimator_type(final)
    # Every model of a boosting library tells its type, except a bare Booster.
    has_kind = is_boosted(final) and not is_booster(final)
    if kind in _UNSUPPORTED_TYPES or (has_kind and kind != "classifier") or not hasattr(model, "predict"):
        description = _UNSUPPORTED_TYPES.get(str(kind), "not a classifier")
        raise ModelError(f"model of run {run.run_id} is {name}, {description}. {_REMEDY}")
    objective = _unsupported_objective(final)
    if objective is not None:
        raise ModelError(
            f"model of run {run.run_id} is {name} with the objective {objective}, whose output is not a "
            f"probability. {_REMEDY}"
        )


def has_probabilities(model: Any) -> bool:
    """Return whether the model returns probabilities and not only labels."""
    final = final_estimator(model)
    if boosting_library(final) == "xgboost" and _xgboost_objective(final) in _XGBOOST_LABEL_OBJECTIVES:
        return False
    return hasattr(model, "predict_proba") or is_bare_catboost(model)


def is_bare_catboost(model: Any) -> bool:
    """Return whether this is CatBoost's general class, whose `predict` returns margins by default."""
    return type(model).__name__ == "CatBoost" and boosting_library(model) == "catboost"


def is_booster(model: Any) -> bool:
    """Return whether this is a bare Booster of XGBoost or LightGBM, which has no `classes_`."""
    return type(model).__name__ == "Booster" and boosting_library(model) in ("xgboost", "lightgbm")


def is_boosted(model: Any) -> bool:
    """Return whether the class of the model itself, not of a step in it, is from XGBoost, LightGBM or CatBoost."""
    return boosting_library(model) is not None


def _estimator_type(model: Any) -> str | None:
    from sklearn.utils import get_tags

    try:
        return get_tags(model).estimator_type  # type: ignore[no-any-return]
    except Exception:
        # The object is not a scikit-learn estimator, or of an earlier version without tags.
        return getattr(model, "_estimator_type", None)


def boosting_library(model: Any) -> str | None:
    """Return xgboost, lightgbm or catboost if the model's class is from that library, else None."""
    name = type(model).__module__.partition(".")[0]
    return name if name in ("xgboost", "lightgbm", "catboost") else None


def _unsupported_objective(model: Any) -> str | None:
    """Return the objective of a boosted model whose output is not a probability, else None."""
    library = boosting_library(model)
    if library == "xgboost":
        objective = _xgboost_objective(model)
        return None if objective in _XGBOOST_OBJECTIVES | _XGBOOST_LABEL_OBJECTIVES else objective
    if library == "lightgbm":
        objective = _lightgbm_objective(model)
        return None if objective in _LIGHTGBM_OBJECTIVES else objective
    if library == "catboost":
        objective = str(model.get_all_params().get("loss_function"))
        return None if objective.partition(":")[0] in _CATBOOST_OBJECTIVES else objective
    return None


def _xgboost_objective(model: Any) -> str:
    if callable(getattr(model, "objective", None)):
        return "custom"
    booster = model if is_booster(model) else model.get_booster()
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def _lightgbm_objective(model: Any) -> str:
    if callable(getattr(model, "objective", None)):
        return "custom"
    booster = model if is_booster(model) else model.booster_
    # A booster does not store a custom objective among its parameters.
    return str(booster.params.get("objective", "custom"))
