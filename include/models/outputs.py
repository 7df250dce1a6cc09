"""Read the output of a model that is not a known classifier: labels or probabilities, as an array or in named columns.

An output that could be read in two ways is refused: a wrong reading would be published as a score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError
from include.models.scores import (
    Scores,
    check_count,
    form,
    from_labels,
    from_probability,
    labels,
    probabilities,
    probabilities_by_class,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

_LABEL = frozenset(("prediction", "predictions", "predicted", "predicted_label", "predicted_class"))
_LABEL |= {"label", "labels", "class", "is_fraud"}
_FRAUD = ("1", "1.0", "true", "fraud")
_GENUINE = ("0", "0.0", "false", "genuine", "legit", "legitimate", "normal", "not_fraud", "non_fraud", "no_fraud")
_WORDS = ("probability", "proba", "prob", "p")


def _of_class(classes: tuple[str, ...]) -> frozenset[str]:
    """Return the names that people give to the probability of one of the classes."""
    of_words = {text for name in classes for word in _WORDS for text in (f"{word}_{name}", f"{name}_{word}")}
    return frozenset({*classes, *of_words, *(f"class_{name}" for name in classes), *(f"p{name}" for name in classes)})


_FRAUD_PROBABILITY = _of_class(_FRAUD) | {"probability", "proba", "prob", "probability_of_fraud"}
_GENUINE_PROBABILITY = _of_class(_GENUINE)
# Even alone, these may be of the predicted class, or grow with what is normal.
_AMBIGUOUS = frozenset(("score", "scores", "confidence", "certainty", "anomaly", "outlier"))
_NOT_FRAUD = frozenset(
    ("not", "non", "no", "genuine", "legit", "legitimate", "normal", "approval", "approved", "good", "ok")
)
_EXPECTED = "name the probability of fraud `fraud_probability` and the label `prediction`"
# Fewer genuine labels than this say nothing about labels and probabilities contradicting each other.
_ENOUGH = 20


class OutputReader:
    """Reads what one model returns, call after call.

    Labels and probabilities that come together must agree: no payment called genuine has a higher probability of
    fraud than one called fraud. Otherwise the probability is of something else, such as the predicted class.
    Floats that are 0.0 or 1.0 in every call are labels.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._gives_fractions = False
        self._highest_genuine = float("-inf")
        self._lowest_fraud = float("inf")
        self._genuine = 0
        self._genuine_above_half = 0

    def read(self, output: Any, count: int) -> Scores:
        """Return the scores of `count` payments, in their order. Raise ModelOutputError for an output that is neither
        labels nor probabilities, or that could mean either of two things."""
        import numpy as np
        import pandas as pd

        if isinstance(output, tuple):
            raise ModelOutputError(f"the model returned a tuple of {len(output)}: {_EXPECTED} in one DataFrame")
        if isinstance(output, dict) or (isinstance(output, list) and output and isinstance(output[0], dict)):
            output = _frame(output)
        if isinstance(output, np.ma.MaskedArray):
            output = np.ma.filled(output.astype(float), np.nan)
        if isinstance(output, pd.DataFrame | pd.Series):
            output = _in_order(output, count)
        if isinstance(output, pd.Series) and output.name is not None:
            output = output.to_frame()
        if isinstance(output, pd.DataFrame):
            return self._of_frame(output)
        if isinstance(output, pd.Series):
            output = _values(output)
        array = np.asarray(output)
        check_count(array, count)
        return self._of_array(array)

    def _of_array(self, array: npt.NDArray[Any]) -> Scores:
        import numpy as np

        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind == "f":
            return from_probability(probabilities_by_class(array)[:, 1], self._threshold)
        if array.dtype.kind == "O" and array.ndim == 1:
            array = _as_floats(array)
        if array.dtype.kind == "f" and array.ndim == 1:
            self._gives_fractions |= bool(((array != 0) & (array != 1) & ~np.isnan(array)).any())
            if self._gives_fractions:
                return from_probability(array, self._threshold)
        return from_labels(array, None, self._threshold)

    def _of_frame(self, frame: pd.DataFrame) -> Scores:
        label, fraud = _named(frame, _LABEL), _named(frame, _FRAUD_PROBABILITY)
        genuine = _named(frame, _GENUINE_PROBABILITY)
        if label is not None and fraud is None:
            return self._of_label(frame, label)
        if fraud is None:
            if frame.shape[1] != 1 or genuine is not None or _is_ambiguous(frame.columns[0]):
                names = ", ".join(str(name) for name in list(frame)[:10])
                raise ModelOutputError(
                    f"the model returned the columns {names}, which do not say what they are: {_EXPECTED}"
                )
            return self._of_array(_values(frame.iloc[:, 0]))
        if genuine is not None:
            probabilities_by_class(frame.iloc[:, [genuine, fraud]].to_numpy(dtype=float, na_value=float("nan")))
        values = _values(frame.iloc[:, fraud])
        if label is None and values.dtype.kind in "biu" and _plain(frame.columns[fraud]) in _FRAUD:
            # A column `fraud` of 0 and 1 holds labels.
            return self._of_array(values)
        probability = probabilities(values)
        if label is None:
            return from_probability(probability, self._threshold)
        own = labels(_values(frame.iloc[:, label]))
        self._check_agreement(own, probability)
        return Scores(own, probability) if self._threshold is None else from_probability(probability, self._threshold)

    def _of_label(self, frame: pd.DataFrame, label: int) -> Scores:
        values = _values(frame.iloc[:, label])
        if self._threshold is not None and values.dtype.kind != "f":
            others = ", ".join(str(name) for place, name in enumerate(frame) if place != label)
            raise ModelOutputError(
                f"threshold {self._threshold} needs the probability of fraud, and the model returned "
                f"{frame.columns[label]}" + (f" beside {others}: {_EXPECTED}" if others else " only")
            )
        return self._of_array(values)

    def _check_agreement(self, label: npt.NDArray[np.int8], probability: npt.NDArray[np.float64]) -> None:
        import numpy as np

        known = ~np.isnan(probability)
        genuine, fraud = probability[known & (label == 0)], probability[known & (label == 1)]
        self._highest_genuine = max(self._highest_genuine, genuine.max(initial=float("-inf")))
        self._lowest_fraud = min(self._lowest_fraud, fraud.min(initial=float("inf")))
        self._genuine += len(genuine)
        self._genuine_above_half += int((genuine > 0.5).sum())
        mostly_above = self._genuine >= _ENOUGH and self._genuine_above_half > self._genuine / 2
        if self._highest_genuine > self._lowest_fraud or mostly_above:
            raise ModelOutputError(
                "the model's labels and probabilities contradict each other: it calls payments genuine whose "
                f"probability of fraud is {self._highest_genuine:g}. Is it the probability of the predicted class? "
                f"Otherwise {_EXPECTED}"
            )


def _frame(output: Any) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.DataFrame(output)
    except (ValueError, TypeError) as error:
        raise ModelOutputError(
            f"the model returned a {type(output).__name__} that cannot be converted to a DataFrame: {_EXPECTED}"
        ) from error


def _in_order(output: Any, count: int) -> Any:
    """Return the rows in the payments' order, by their index. It was 0, 1, 2, … in the frame that the model got."""
    import numpy as np

    if len(output) != count:
        raise ModelOutputError(f"the model returned {len(output)} rows for {count} payments")
    index = np.asarray(output.index)
    if np.array_equal(index, np.arange(count)):
        return output
    if index.dtype.kind in "iu" and np.array_equal(np.sort(index), np.arange(count)):
        return output.sort_index()
    raise ModelOutputError(
        f"the model returned a {type(output).__name__} with another index than its input, so its rows cannot be "
        "matched to payments: keep the index of the frame, or return an array in its order"
    )


def _named(frame: pd.DataFrame, names: frozenset[str]) -> int | None:
    """Return the place of the only column with one of the names."""
    found = [place for place, name in enumerate(frame) if _plain(name) in names]
    if len(found) > 1:
        both = " and ".join(str(frame.columns[place]) for place in found)
        raise ModelOutputError(f"the model returned the columns {both}, which say the same thing: {_EXPECTED}")
    return found[0] if found else None


def _plain(name: object) -> str:
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def _is_ambiguous(name: object) -> bool:
    """Return whether a column of that name, alone, may hold something else than labels or the probability of fraud."""
    words = set(_plain(name).split("_"))
    return bool(words & _NOT_FRAUD) or (bool(words & _AMBIGUOUS) and "fraud" not in words)


def _as_floats(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return Python floats, some of which may be None, as an array of floats; any other array as it is."""
    import numpy as np

    if not any(type(value) is float for value in array) or not all(
        value is None or type(value) in (int, float) for value in array
    ):
        return array
    return np.array([np.nan if value is None else value for value in array], dtype=float)


def _values(column: Any) -> npt.NDArray[Any]:
    """Return a column's values; NaN where an extension type of pandas has NA."""
    import pandas as pd

    dtype = column.dtype
    if pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_float_dtype(dtype):
        return column.to_numpy(dtype=float, na_value=float("nan"))  # type: ignore[no-any-return]
    values = column.to_numpy()
    if values.ndim != 1:
        raise ModelOutputError(f"the model returned {form(values)}: one value a payment was expected")
    return values  # type: ignore[no-any-return]
