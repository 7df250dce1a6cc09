"""Get predictions and fraud probabilities from a classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from include.errors import ModelError, ModelOutputError
from include.models.agreement import Agreement
from include.models.estimator import gives_probabilities, is_bare_catboost
from include.models.model_run import ModelRun
from include.models.outputs import (
    Scores,
    check_count,
    parse_class_probabilities,
    parse_labels,
    scores_from_labels,
    scores_from_probability,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

# Below this many rows, starting the threads of a forest costs more than they save, and so does sorting for it.
_MANY_ROWS = 1_000
# `predict` is called for the first payments also where a threshold decides, to compare it with `predict_proba`.
_COMPARED = 200


def classifier_scorer(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    """Return a function that scores a frame by a model that has `classes_`. Raise ModelError for classes other than 0
    and 1."""
    import numpy as np

    classes = _classes(model, run)
    fraud = np.flatnonzero(classes == 1)
    forest = _forest(model)
    if forest is not None:
        forest.predict_proba = partial(_predict_sorted_by_leaf, forest, forest.predict_proba)
    takes_largest = forest is not None or is_bare_catboost(model)
    agreement = Agreement()
    has_probability = gives_probabilities(model)
    if run.threshold is not None and not has_probability:
        raise ModelError(f"model of run {run.run_id} has a threshold ({run.threshold}), but gives no probabilities")

    def ask(frame: pd.DataFrame) -> Scores:
        count = len(frame)
        if forest is not None:
            forest.n_jobs = 1 if count < _MANY_ROWS else -1
        shares = probability = None
        if has_probability:
            # A model that changes its frame must not change it for the next question.
            shares = _shares(model, frame.copy(deep=False), model.classes_)
            # Without fraud among the payments that it was trained on, there is no such class.
            probability = shares[:, fraud[0]] if len(fraud) else np.zeros(count)
        own = None
        if probability is not None and not takes_largest and agreement.count < _COMPARED:
            own = parse_labels(_predictions(model, frame.copy(deep=False), classes))
            agreement.add(own, probability)
            agreement.check("predict and predict_proba (are its columns in the order of classes_?)")
        if run.threshold is not None:
            prediction = None
        elif own is not None:
            prediction = own
        elif takes_largest and shares is not None:
            # What a forest's predict does with the same probabilities; asking it would grow them once more.
            prediction = classes[np.argmax(shares, axis=1)]
        else:
            prediction = _predictions(model, frame, classes)
        return scores_from_labels(prediction, probability, run.threshold)

    return ask


def _classes(model: Any, run: ModelRun) -> npt.NDArray[np.int8]:
    import numpy as np

    try:
        return parse_labels(np.asarray(model.classes_))
    except (ModelError, ValueError) as error:
        raise ModelError(
            f"model of run {run.run_id} has the classes {str(model.classes_)[:100]}: only classifiers of 0 and 1 are "
            "supported. Choose another model"
        ) from error


def booster_scorer(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    """Return a function that scores a frame by a bare Booster, whose objective gives the probability of fraud."""
    import numpy as np

    def ask(frame: pd.DataFrame) -> Scores:
        if type(model).__module__.startswith("xgboost"):
            from xgboost import DMatrix

            found = np.asarray(model.predict(DMatrix(frame, enable_categorical=True)))
        else:
            found = np.asarray(model.predict(frame))
        check_count(found, len(frame))
        if found.ndim == 2 and found.shape[1] != 2:
            raise ModelOutputError(
                f"the model returned the probabilities of {found.shape[1]} classes, and 2 were expected"
            )
        return scores_from_probability(
            parse_class_probabilities(found)[:, 1] if found.ndim == 2 else found, run.threshold
        )

    return ask


def _predictions(model: Any, frame: pd.DataFrame, classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    found: npt.NDArray[Any] = np.asarray(model.predict(frame))
    check_count(found, len(frame))
    if found.ndim == 2 and found.shape[1] == 1:
        # CatBoost returns a column where it was trained on more than one objective.
        return found[:, 0]
    if found.ndim == 2 and found.shape[1] == len(classes):
        # XGBoost returns the probabilities of both classes for multi:softprob.
        found = classes[np.argmax(found, axis=1)]
    return found


def _shares(model: Any, frame: pd.DataFrame, classes: Any) -> npt.NDArray[Any]:
    """Return the probability of each class, in the order of `classes`."""
    import numpy as np

    if is_bare_catboost(model):
        found = model.predict(frame, prediction_type="Probability")
    else:
        found = model.predict_proba(frame)
    names = [str(name) for name in getattr(found, "columns", ())]
    wanted = [str(name) for name in classes]
    shares = np.asarray(found)
    check_count(shares, len(frame))
    if shares.ndim != 2 or shares.shape[1] != len(wanted):
        raise ModelOutputError(f"predict_proba returned the shape {shares.shape} for {len(wanted)} classes")
    if names and names != [str(place) for place in range(len(names))]:
        if set(names) != set(wanted):
            raise ModelOutputError(f"predict_proba returned the columns {', '.join(names)} for {', '.join(wanted)}")
        shares = shares[:, [names.index(name) for name in wanted]]
    return parse_class_probabilities(shares)


def _predict_sorted_by_leaf(forest: Any, predict_proba: Callable[[Any], Any], rows: Any) -> Any:
    """Return `predict_proba` of the rows, computed in the order of their leaf in the first tree.

    Similar rows then follow each other and take the same branches: a deep forest needs 0.7 of the processor time for
    10,000 rows, a shallow one as much as before (benchmarks/shortcuts.py). No row's result depends on another row.
    """
    import numpy as np

    if rows.shape[0] < _MANY_ROWS:
        return predict_proba(rows)
    order = np.argsort(forest.estimators_[0].apply(rows), kind="stable")
    asked = predict_proba(rows.iloc[order] if hasattr(rows, "iloc") else rows[order])
    shares = np.empty_like(asked)
    shares[order] = asked
    return shares


def _forest(model: Any) -> Any:
    """The forest that a model is, or that a pipeline ends with."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.pipeline import Pipeline

    is_plain_pipeline = isinstance(model, Pipeline) and type(model).__module__.startswith(("sklearn.", "imblearn."))
    last = model.steps[-1][1] if is_plain_pipeline else model
    # A class derived from a forest or a pipeline may predict in its own way.
    return last if type(last) in (RandomForestClassifier, ExtraTreesClassifier) else None
