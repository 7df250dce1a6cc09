"""Get predictions and fraud probabilities from a classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from include.errors import ModelError, ModelOutputError
from include.models.agreement import Agreement
from include.models.estimator import has_probabilities, is_bare_catboost
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

# With fewer rows, starting a forest's threads and sorting for it cost more than they save.
_MANY_ROWS = 1_000
# For the first payments `predict` is called even if a threshold decides, to compare it with `predict_proba`.
_COMPARED_PAYMENTS = 200


def classifier_scorer(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    """Return a function that scores a frame with a model that has `classes_`.

    Raise ModelError for classes other than 0 and 1, and for a threshold of a model without probabilities.
    """
    import numpy as np

    classes = _class_labels(model, run)
    fraud_columns = np.flatnonzero(classes == 1)
    forest = _find_forest(model)
    if forest is not None:
        forest.predict_proba = partial(_predict_sorted_by_leaf, forest, forest.predict_proba)
    predicts_likeliest_class = forest is not None or is_bare_catboost(model)
    agreement = Agreement()
    has_probability = has_probabilities(model)
    if run.threshold is not None and not has_probability:
        raise ModelError(
            f"model of run {run.run_id} has a threshold ({run.threshold}), but gives no probabilities. Remove the "
            "threshold, or choose another model"
        )

    def score(frame: pd.DataFrame) -> Scores:
        count = len(frame)
        if forest is not None:
            forest.n_jobs = 1 if count < _MANY_ROWS else -1
        by_class = probability = None
        if has_probability:
            # A model may change its frame: the next call needs it unchanged.
            by_class = _class_probabilities(model, frame.copy(deep=False))
            # A model that was trained without fraud has no class 1.
            probability = by_class[:, fraud_columns[0]] if len(fraud_columns) else np.zeros(count)
        predicted = None
        if probability is not None and not predicts_likeliest_class and agreement.count < _COMPARED_PAYMENTS:
            predicted = parse_labels(_predict_labels(model, frame.copy(deep=False), classes))
            agreement.add(predicted, probability)
            agreement.check("predict and predict_proba (are its columns in the order of classes_?)")
        if run.threshold is None and predicted is None:
            if predicts_likeliest_class and by_class is not None:
                # The forest's own `predict` does the same, but computes the probabilities a second time.
                predicted = classes[np.argmax(by_class, axis=1)]
            else:
                predicted = _predict_labels(model, frame, classes)
        return scores_from_labels(predicted, probability, run.threshold)

    return score


def _class_labels(model: Any, run: ModelRun) -> npt.NDArray[np.int8]:
    import numpy as np

    try:
        return parse_labels(np.asarray(model.classes_))
    except (ModelError, ValueError) as error:
        raise ModelError(
            f"model of run {run.run_id} has the classes {str(model.classes_)[:100]}: only classifiers of 0 and 1 are "
            "supported. Choose another model"
        ) from error


def booster_scorer(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    """Return a function that scores a frame with a bare Booster, whose output is the probability of fraud."""
    import numpy as np

    def score(frame: pd.DataFrame) -> Scores:
        if type(model).__module__.startswith("xgboost"):
            from xgboost import DMatrix

            output = np.asarray(model.predict(DMatrix(frame, enable_categorical=True)))
        else:
            output = np.asarray(model.predict(frame))
        check_count(output, len(frame))
        if output.ndim == 2 and output.shape[1] != 2:
            raise ModelOutputError(
                f"the model returned the probabilities of {output.shape[1]} classes, and 2 were expected"
            )
        return scores_from_probability(
            parse_class_probabilities(output)[:, 1] if output.ndim == 2 else output, run.threshold
        )

    return score


def _predict_labels(model: Any, frame: pd.DataFrame, classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    predicted: npt.NDArray[Any] = np.asarray(model.predict(frame))
    check_count(predicted, len(frame))
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        # CatBoost returns a column if it was trained on several objectives.
        return predicted[:, 0]
    if predicted.ndim == 2 and predicted.shape[1] == len(classes):
        # XGBoost returns the probabilities of both classes for multi:softprob.
        predicted = classes[np.argmax(predicted, axis=1)]
    return predicted


def _class_probabilities(model: Any, frame: pd.DataFrame) -> npt.NDArray[Any]:
    """Return the probability of each class, in the order of `classes_`."""
    import numpy as np

    if is_bare_catboost(model):
        output = model.predict(frame, prediction_type="Probability")
    else:
        output = model.predict_proba(frame)
    columns = [str(name) for name in getattr(output, "columns", ())]
    classes = [str(name) for name in model.classes_]
    by_class = np.asarray(output)
    check_count(by_class, len(frame))
    if by_class.ndim != 2 or by_class.shape[1] != len(classes):
        raise ModelOutputError(f"predict_proba returned the shape {by_class.shape} for {len(classes)} classes")
    if columns and columns != [str(index) for index in range(len(columns))]:
        if set(columns) != set(classes):
            raise ModelOutputError(f"predict_proba returned the columns {', '.join(columns)} for {', '.join(classes)}")
        by_class = by_class[:, [columns.index(name) for name in classes]]
    return parse_class_probabilities(by_class)


def _predict_sorted_by_leaf(forest: Any, predict_proba: Callable[[Any], Any], rows: Any) -> Any:
    """Return `predict_proba` of the rows, computed in the order of their leaf in the first tree.

    Similar rows then follow each other and take the same branches: a deep forest needs 0.7 of the processor time for
    10,000 rows, a shallow one as much as before (benchmarks/shortcuts.py). No row's result depends on another row.
    """
    import numpy as np

    if rows.shape[0] < _MANY_ROWS:
        return predict_proba(rows)
    order = np.argsort(forest.estimators_[0].apply(rows), kind="stable")
    in_leaf_order = predict_proba(rows.iloc[order] if hasattr(rows, "iloc") else rows[order])
    by_class = np.empty_like(in_leaf_order)
    by_class[order] = in_leaf_order
    return by_class


def _find_forest(model: Any) -> Any:
    """Return the model if it is a forest, or the forest that is a pipeline's last step; else None."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.pipeline import Pipeline

    is_plain_pipeline = isinstance(model, Pipeline) and type(model).__module__.startswith(("sklearn.", "imblearn."))
    estimator = model.steps[-1][1] if is_plain_pipeline else model
    # A subclass of a forest or a pipeline may predict differently.
    return estimator if type(estimator) in (RandomForestClassifier, ExtraTreesClassifier) else None
