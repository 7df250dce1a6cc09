"""Convert a model's labels and probabilities to predictions of 0 and 1.

Every function raises ModelOutputError for another value: no payment can cause one, so the fault is the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LABEL_TEXTS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
# The rounding error of a float32: a value further outside [0, 1] is not a probability.
_ROUNDING = 1e-6
_SUM_ROUNDING = 1e-3


@dataclass(frozen=True)
class Scores:
    """Hold a model's scores, one entry per payment.

    `prediction` is 0 or 1, and -1 if the model returned nothing for the payment. `probability` is None if the model
    returns labels only. `is_named_fraud` is true if the model's own name for the probability mentions fraud.
    """

    prediction: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64] | None
    is_named_fraud: bool = False


def parse_labels(values: Any) -> npt.NDArray[np.int8]:
    """Return the labels as 0 and 1, and -1 where a value is missing.

    Labels may be booleans, numbers or texts such as "1". Raise ModelOutputError for any other value.
    """
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.ndim != 1:
        raise ModelOutputError(f"the model returned {describe_array(array)}: expected one label per payment")
    if array.dtype.kind in "biuf":
        known = np.isin(array, (0, 1))
        missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), dtype=bool)
        result = np.full(len(array), -1, dtype=np.int8)
        result[known] = array[known].astype(np.int8)
    else:
        missing = np.asarray(pd.isna(array))
        # Each distinct label is converted once: a model returns few of them.
        codes, distinct = pd.factorize(array.astype(object))
        distinct_labels = np.array([_LABEL_TEXTS.get(str(value).lower(), -2) for value in distinct] + [-1], np.int8)
        result = distinct_labels[codes]
        known = result >= 0
    if not (known | missing).all():
        unknown = array[~(known | missing)][0]
        # A text is not quoted, because it may come from the payment.
        shown = f"{unknown:g}" if array.dtype.kind in "iuf" else f"a {type(unknown).__name__}"
        raise ModelOutputError(f"the model returned {shown}: expected the labels 0 and 1")
    return result


def scores_from_labels(labels: Any, probability: npt.NDArray[np.float64] | None, threshold: float | None) -> Scores:
    """Return scores with the model's own labels; with a threshold, the probabilities decide instead.

    Raise ModelOutputError if there is a threshold and no probability.
    """
    if threshold is not None:
        if probability is None:
            raise ModelOutputError(
                f"threshold {threshold} needs a model that returns probabilities; this one returns labels only"
            )
        return scores_from_probability(probability, threshold)
    return Scores(parse_labels(labels), probability)


def scores_from_probability(values: Any, threshold: float | None) -> Scores:
    """Return scores with prediction 1 from the threshold up (default 0.5), and -1 where the probability is NaN."""
    import numpy as np

    probability = parse_probabilities(values)
    prediction = (probability >= (0.5 if threshold is None else threshold)).astype(np.int8)
    prediction[np.isnan(probability)] = -1
    return Scores(prediction, probability)


def parse_probabilities(values: Any) -> npt.NDArray[np.float64]:
    """Return the probabilities, in [0, 1], and NaN where one is missing. Raise ModelOutputError for another value."""
    import numpy as np
    import pandas as pd

    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = np.where(pd.isna(array), np.nan, array)
        probabilities = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        # The error names the types only: a text may come from the payment.
        types = ", ".join(sorted({type(value).__name__ for value in np.ravel(array)} - {"float", "float64", "int"})[:3])
        raise ModelOutputError(f"the model returned probabilities that are not numbers ({types})") from error
    is_outside = (probabilities < -_ROUNDING) | (probabilities > 1 + _ROUNDING)
    if is_outside.any():
        raise ModelOutputError(
            f"the model returned {probabilities[is_outside][0]:g}: expected a label (0 or 1) or a probability (0 to 1)"
        )
    return probabilities.clip(0, 1)


def parse_class_probabilities(values: Any) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (payments, classes). Raise ModelOutputError if a row does not add up to 1."""
    import numpy as np

    probabilities = parse_probabilities(values)
    sums = probabilities.sum(axis=1)
    # A row of NaN, a payment without a prediction, compares false.
    is_wrong = np.abs(sums - 1) > _SUM_ROUNDING
    if is_wrong.any():
        raise ModelOutputError(
            f"the model returned {probabilities.shape[1]} columns that add up to {sums[is_wrong][0]:g} for a payment: "
            "probabilities add up to 1"
        )
    return probabilities


def check_count(array: npt.NDArray[Any], count: int) -> None:
    """Raise ModelOutputError unless the array has one row for each of `count` payments."""
    if array.ndim == 0 or len(array) != count:
        raise ModelOutputError(f"the model returned {describe_array(array)} for {count} payments")


def describe_array(array: npt.NDArray[Any]) -> str:
    """Return the array's type and shape, for an error."""
    return f"values of type {array.dtype} in the shape {array.shape}"
