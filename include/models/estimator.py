"""Reject estimators that are not classifiers, and classifiers whose output is not a probability.

An outlier detector calls ordinary payments 1, a regressor or a custom objective gives any number: by chance these look
like labels and probabilities. So they are refused by name when the model is loaded.
"""

from __future__ import annotations

import json
from typing import Any

from include.errors import ModelError
from include.models.model_run import ModelRun

_KINDS = {
    "outlier_detector": "an outlier detector, which calls ordinary payments 1 and outliers -1",
    "regressor": "a regressor, whose numbers are no probabilities",
    "clusterer": "a clusterer, whose numbers name clusters",
    "density_estimator": "a density estimator, whose numbers name components",
    "transformer": "a transformer, which predicts nothing",
}
_REMEDY = "Log a classifier of 0 and 1, or a pyfunc model that returns the probability of fraud"
# Objectives whose output is a probability, or the probabilities of both classes.
_XGBOOST = frozenset(("binary:logistic", "reg:logistic", "multi:softprob"))
_XGBOOST_LABELS = frozenset(("binary:hinge",))
_LIGHTGBM = frozenset(("binary", "cross_entropy", "xentropy", "multiclass", "softmax", "multiclassova", "ova", "ovr"))
_CATBOOST = frozenset(("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "Focal"))


def final_estimator(model: Any) -> Any:
    """Return the estimator that answers at the end: of a pipeline its last step, of a search its best."""
    while True:
        if isinstance(getattr(model, "steps", None), list):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return model


def require_classifier(model: Any, run: ModelRun) -> None:
    """Raise ModelError for an estimator that is known to be something else than a classifier, or whose output
    is not a probability."""
    final = final_estimator(model)
    name = type(final).__name__
    kind = _kind(final)
    boosted = library_of(final) is not None and not is_booster(final)
    if kind in _KINDS or (kind != "classifier" and boosted) or not hasattr(model, "predict"):
        what = _KINDS.get(str(kind), "no classifier")
        raise ModelError(f"model of run {run.run_id} is {name}, {what}. {_REMEDY}")
    objective = _objective(final)
    if objective is not None:
        raise ModelError(
            f"model of run {run.run_id} is {name} with the objective {objective}, whose output is not a "
            f"probability. {_REMEDY}"
        )


def gives_probabilities(model: Any) -> bool:
    """Return whether `predict_proba` is there and gives more than labels."""
    final = final_estimator(model)
    if library_of(final) == "xgboost" and _xgboost_objective(final) in _XGBOOST_LABELS:
        return False
    return hasattr(model, "predict_proba") or is_bare_catboost(model)


def is_bare_catboost(model: Any) -> bool:
    """Return whether this is CatBoost's general class, whose `predict` gives margins unless told otherwise."""
    return type(model).__name__ == "CatBoost" and library_of(model) == "catboost"


def is_booster(model: Any) -> bool:
    """Return whether this is a bare Booster of XGBoost or LightGBM, which knows no classes."""
    return type(model).__name__ == "Booster" and library_of(model) in ("xgboost", "lightgbm")


def is_boosted(model: Any) -> bool:
    """Return whether the model itself, and not a pipeline around it, is of XGBoost, LightGBM or CatBoost."""
    return library_of(model) is not None


def _kind(model: Any) -> str | None:
    from sklearn.utils import get_tags

    try:
        return get_tags(model).estimator_type  # type: ignore[no-any-return]
    except Exception:
        # An object that is no scikit-learn estimator, or one of an earlier version.
        return getattr(model, "_estimator_type", None)


def library_of(model: Any) -> str | None:
    name = type(model).__module__.partition(".")[0]
    return name if name in ("xgboost", "lightgbm", "catboost") else None


def _objective(model: Any) -> str | None:
    """Return the objective of a boosted model whose output is no probability; None where it is one."""
    library = library_of(model)
    if library == "xgboost":
        objective = _xgboost_objective(model)
        return None if objective in _XGBOOST | _XGBOOST_LABELS else objective
    if library == "lightgbm":
        objective = _lightgbm_objective(model)
        return None if objective in _LIGHTGBM else objective
    if library == "catboost":
        objective = str(model.get_all_params().get("loss_function"))
        return None if objective.partition(":")[0] in _CATBOOST else objective
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
    # A custom objective is not among the parameters that a booster stores.
    return str(booster.params.get("objective", "custom"))
