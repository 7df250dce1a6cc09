"""What a model returns, in whatever form, to predictions of 0 and 1 and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PREDICTION = ("prediction", "predictions", "label", "is_fraud")
_PROBABILITY = ("probability", "fraud_probability", "score")
_WORDS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Scores:
    """`prediction` is 0 or 1, and -1 where the model gave none; `probability` is None where it knows none."""

    prediction: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64] | None


def labels(values: Any) -> npt.NDArray[np.int8]:
    """0 and 1 from the forms they come in: true, 1.0, "1". Raises ModelError for any other."""
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.ndim != 1:
        raise ModelError(f"the model returned {_form(array)}: one label a payment was expected")
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
        raise ModelError(f"the model returned {shown}: labels 0 and 1 were expected")
    return result


def from_classifier(
    prediction: Any, probability: npt.NDArray[np.float64] | None, count: int, threshold: float | None
) -> Scores:
    """`prediction` is what the model's own predict said; a threshold overrules it."""
    if threshold is not None:
        if probability is None:
            raise ModelError(
                f"threshold {threshold} needs a model that gives probabilities; this one gives labels only"
            )
        return from_probability(probability, threshold)
    found = labels(prediction)
    _check_count(found, count)
    return Scores(found, probability)


def from_probability(values: Any, threshold: float | None) -> Scores:
    import numpy as np

    probability = np.asarray(values, dtype=np.float64)
    none = np.isnan(probability)
    outside = ~none & ((probability < 0) | (probability > 1))
    if outside.any():
        raise ModelError(
            f"the model returned {probability[outside][0]:g}: a label (0 or 1) or a probability was expected"
        )
    prediction = (probability >= (0.5 if threshold is None else threshold)).astype(np.int8)
    prediction[none] = -1
    return Scores(prediction, probability)


def from_output(output: Any, count: int, threshold: float | None) -> Scores:
    """Of a model of which nothing is known but what it returned: numbers with a fraction are probabilities."""
    import numpy as np
    import pandas as pd

    if isinstance(output, dict):
        output = pd.DataFrame(output)
    if isinstance(output, pd.DataFrame):
        prediction, probability = _named(output, _PREDICTION), _named(output, _PROBABILITY)
        if prediction is not None and probability is not None:
            _check_count(probability, count)
            own = from_probability(probability, threshold)
            return from_classifier(prediction, own.probability, count, threshold)
        named = probability if probability is not None else prediction
        output = output.to_numpy() if named is None else named
    array = np.asarray(output)
    _check_count(array, count)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind == "f":
        return from_probability(array[:, 1], threshold)
    if array.dtype.kind == "f" and array.ndim == 1:
        return from_probability(array, threshold)
    return from_classifier(array, None, count, threshold)


def _named(frame: Any, names: tuple[str, ...]) -> Any:
    for column in frame.columns:
        if str(column).lower() in names:
            return frame[column].to_numpy()
    return None


def _check_count(array: npt.NDArray[Any], count: int) -> None:
    if array.ndim == 0 or len(array) != count:
        raise ModelError(f"the model returned {_form(array)} for {count} payments")


def _form(array: npt.NDArray[Any]) -> str:
    return f"values of type {array.dtype} in the shape {array.shape}"
