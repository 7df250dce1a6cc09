"""Convert labels and probabilities to predictions of 0 and 1.

Raise ModelOutputError for any other value: no payment can cause it, so the model is at fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_WORDS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
# A float32's rounding; what lies further out is no probability.
_ROUNDING = 1e-6
_ROUNDING_OF_SUM = 1e-3


@dataclass(frozen=True)
class Scores:
    """`prediction` is 0 or 1, and -1 where the model gave none; `probability` is None where it knows none.

    `is_named`: the model's own name for the probability says that it is of fraud.
    """

    prediction: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64] | None
    is_named: bool = False


def labels(values: Any) -> npt.NDArray[np.int8]:
    """Return 0 and 1 from the forms they come in: true, 1.0, "1". Raise ModelOutputError for any other."""
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.ndim != 1:
        raise ModelOutputError(f"the model returned {form(array)}: one label a payment was expected")
    if array.dtype.kind in "biuf":
        known = np.isin(array, (0, 1))
        none = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), dtype=bool)
        result = np.full(len(array), -1, dtype=np.int8)
        result[known] = array[known].astype(np.int8)
    else:
        none = np.asarray(pd.isna(array))
        # By distinct value, of which a model has few.
        codes, distinct = pd.factorize(array.astype(object))
        known_values = np.array([_WORDS.get(str(value).lower(), -2) for value in distinct] + [-1], dtype=np.int8)
        result = known_values[codes]
        known = result >= 0
    if not (known | none).all():
        # A text is not quoted: it might be the payment's.
        unknown = array[~(known | none)][0]
        shown = f"{unknown:g}" if array.dtype.kind in "iuf" else f"a {type(unknown).__name__}"
        raise ModelOutputError(f"the model returned {shown}: labels 0 and 1 were expected")
    return result


def from_labels(prediction: Any, probability: npt.NDArray[np.float64] | None, threshold: float | None) -> Scores:
    """Return the model's own predictions, unless a threshold on its probabilities overrules them."""
    if threshold is not None:
        if probability is None:
            raise ModelOutputError(
                f"threshold {threshold} needs a model that gives probabilities; this one gives labels only"
            )
        return from_probability(probability, threshold)
    return Scores(labels(prediction), probability)


def from_probability(values: Any, threshold: float | None) -> Scores:
    import numpy as np

    probability = probabilities(values)
    prediction = (probability >= (0.5 if threshold is None else threshold)).astype(np.int8)
    prediction[np.isnan(probability)] = -1
    return Scores(prediction, probability)


def probabilities(values: Any) -> npt.NDArray[np.float64]:
    """Return the values within [0, 1], NaN where there is none. Raise ModelOutputError for a value outside."""
    import numpy as np
    import pandas as pd

    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = np.where(pd.isna(array), np.nan, array)
        found = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        # Its text might be the payment's.
        kinds = ", ".join(sorted({type(value).__name__ for value in np.ravel(array)} - {"float", "float64", "int"})[:3])
        raise ModelOutputError(f"the model returned probabilities that are no numbers ({kinds})") from error
    outside = (found < -_ROUNDING) | (found > 1 + _ROUNDING)
    if outside.any():
        raise ModelOutputError(
            f"the model returned {found[outside][0]:g}: a label (0 or 1) or a probability (0 to 1) was expected"
        )
    return found.clip(0, 1)


def probabilities_by_class(values: Any) -> npt.NDArray[np.float64]:
    """Return an array of shape (payments, classes). Raise ModelOutputError where a row does not add up to 1."""
    import numpy as np

    found = probabilities(values)
    sums = found.sum(axis=1)
    # A row of NaN is a payment without a prediction.
    wrong = np.abs(sums - 1) > _ROUNDING_OF_SUM
    if wrong.any():
        raise ModelOutputError(
            f"the model returned {found.shape[1]} columns that add up to {sums[wrong][0]:g} for a payment: "
            "probabilities add up to 1"
        )
    return found


def check_count(array: npt.NDArray[Any], count: int) -> None:
    if array.ndim == 0 or len(array) != count:
        raise ModelOutputError(f"the model returned {form(array)} for {count} payments")


def form(array: npt.NDArray[Any]) -> str:
    return f"values of type {array.dtype} in the shape {array.shape}"
