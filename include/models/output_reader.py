"""Read the output of a model that is not a known classifier: labels or probabilities, as an array or in named columns.

An output that could be read in two ways is refused: a wrong reading would be published as a score.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError
from include.models.agreement import Agreement
from include.models.output_columns import (
    EXPECTED,
    column_meanings,
    column_values,
    in_payment_order,
    is_unnamed,
    only_column,
    to_frame,
    unclear_columns,
)
from include.models.output_names import Meaning, meaning_of_only, mentions_probability
from include.models.outputs import (
    Scores,
    check_count,
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

log = logging.getLogger(__name__)

# Fewer genuine labels than this say nothing about labels and probabilities contradicting each other.
_ENOUGH = 20


class OutputReader:
    """Reads what one model returns, call after call; `inputs` are the columns of the frame that it takes.

    Labels must agree with probabilities whose name does not mention fraud: no payment called genuine has a higher one
    than a payment called fraud. Otherwise the probability is of something else, such as the predicted class. Where the
    name mentions fraud, payments called genuine must have the lower ones on average, for segments may have limits of
    their own.
    Floats that are 0.0 or 1.0 in every call are labels.
    """

    def __init__(self, threshold: float | None, inputs: Collection[str] = ()) -> None:
        self._threshold = threshold
        self._inputs = inputs
        self._others_logged = False
        self._given: pd.Series | None = None
        self._gives_fractions = False
        self._highest_genuine = float("-inf")
        self._lowest_fraud = float("inf")
        self._genuine = 0
        self._genuine_above_half = 0
        self._agreement = Agreement()

    def read(self, output: Any, count: int, is_fraud: pd.Series | None = None) -> Scores:
        """Return the scores of `count` payments, in their order; `is_fraud` is that column of the frame that the model
        got, if it takes one. Raise ModelOutputError for an output that is neither
        labels nor probabilities, or that could mean either of two things."""
        self._given = is_fraud
        try:
            return self._read(output, count)
        except (TypeError, ValueError) as error:
            # No payment can cause it, and the error's words may quote one.
            name = type(output).__name__
            raise ModelOutputError(
                f"the model returned a {name} that cannot be read ({type(error).__name__}): {EXPECTED}"
            ) from error

    def _read(self, output: Any, count: int) -> Scores:
        import numpy as np
        import pandas as pd

        if isinstance(output, tuple):
            raise ModelOutputError(f"the model returned a tuple of {len(output)}: {EXPECTED} in one DataFrame")
        if isinstance(output, dict) or (isinstance(output, list) and output and isinstance(output[0], dict)):
            output = to_frame(output)
        if isinstance(output, np.ma.MaskedArray):
            output = np.ma.filled(output.astype(float), np.nan)
        if isinstance(output, pd.DataFrame | pd.Series):
            output = in_payment_order(output, count)
        if isinstance(output, pd.Series) and output.name is not None:
            output = output.to_frame()
        if isinstance(output, pd.DataFrame):
            return self._of_frame(output)
        if isinstance(output, pd.Series):
            output = column_values(output)
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
            array = self._as_floats(array)
        if array.dtype.kind in "fiu" and array.ndim == 1:
            if array.dtype.kind == "f":
                self._gives_fractions |= bool(((array != 0) & (array != 1) & ~np.isnan(array)).any())
            if self._gives_fractions:
                # Also whole numbers: Python's min(1, p) returns one.
                return from_probability(array, self._threshold)
        return from_labels(array, None, self._threshold)

    def _as_floats(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return Python numbers, of which one is a float, as an array of floats with NaN for null; any other array,
        such as labels, as it is."""
        import numpy as np
        import pandas as pd

        null = np.asarray(pd.isna(array))
        numbers = array[~null]
        is_number = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in numbers)
        has_float = any(isinstance(value, float | np.floating) for value in numbers)
        # An array of nulls is one of probabilities where other calls gave some.
        if not is_number or not (has_float or (self._gives_fractions and null.all())):
            return array
        return np.where(null, np.nan, array).astype(float)

    def _of_frame(self, frame: pd.DataFrame) -> Scores:
        added = [place for place, name in enumerate(frame) if not self._is_passed_on(frame, place, name)]
        if frame.shape[1] > 1 and added:
            # Columns of its input that the model returns are not its answer.
            frame = frame.iloc[:, added]
        if frame.shape[1] == 1:
            return self._of_column(frame)
        if is_unnamed(frame):
            return self._of_array(frame.to_numpy())
        meanings = column_meanings(frame)
        label = only_column(frame, meanings, Meaning.LABEL)
        fraud = only_column(frame, meanings, Meaning.FRAUD, Meaning.PROBABILITY)
        if fraud is None:
            if label is None:
                raise unclear_columns(frame)
            return self._of_label(frame, label)
        values = column_values(frame.iloc[:, fraud])
        is_named = meanings[fraud] is Meaning.FRAUD
        genuine = only_column(frame, meanings, Meaning.GENUINE)
        if label is None and genuine is None and not mentions_probability(frame.columns[fraud]):
            return self._of_class(values, is_named=is_named)
        probability = probabilities(values)
        if genuine is not None:
            _check_sum(probabilities(column_values(frame.iloc[:, genuine])), probability)
        return self._of_probability(frame, label, probability, is_named=is_named)

    def _is_passed_on(self, frame: pd.DataFrame, place: int, name: object) -> bool:
        if name == "is_fraud" and self._given is not None:
            # The label that a model adds has the name of a payment's own field, which is null.
            return bool(self._given.reset_index(drop=True).equals(frame.iloc[:, place].reset_index(drop=True)))
        return name in self._inputs

    def _of_probability(
        self, frame: pd.DataFrame, label: int | None, probability: npt.NDArray[np.float64], *, is_named: bool
    ) -> Scores:
        if label is None:
            return replace(from_probability(probability, self._threshold), is_named=is_named)
        own = labels(column_values(frame.iloc[:, label]))
        if is_named:
            self._agreement.add(own, probability)
            self._agreement.check("the columns with the label and with the probability of fraud")
        else:
            self._check_agreement(own, probability)
        if self._threshold is not None:
            return replace(from_probability(probability, self._threshold), is_named=is_named)
        return Scores(own, probability, is_named)

    def _of_column(self, frame: pd.DataFrame) -> Scores:
        """Read a frame of one column."""
        name = frame.columns[0]
        meaning = Meaning.NEUTRAL if is_unnamed(frame) else meaning_of_only(name, self._inputs)
        if meaning in (Meaning.UNKNOWN, Meaning.GENUINE):
            raise unclear_columns(frame)
        values = column_values(frame.iloc[:, 0])
        is_named = meaning is Meaning.FRAUD
        if meaning in (Meaning.FRAUD, Meaning.PROBABILITY) and mentions_probability(name):
            return replace(from_probability(values, self._threshold), is_named=is_named)
        return self._of_class(values, is_named=is_named)

    def _of_class(self, values: npt.NDArray[Any], *, is_named: bool) -> Scores:
        """Read a column such as `fraud`, which may hold labels or probabilities."""
        scores = self._of_array(values)
        return scores if scores.probability is None else replace(scores, is_named=is_named)

    def _of_label(self, frame: pd.DataFrame, label: int) -> Scores:
        values = column_values(frame.iloc[:, label])
        others = ", ".join(str(name) for place, name in enumerate(frame) if place != label)
        if self._threshold is not None and values.dtype.kind != "f":
            raise ModelOutputError(
                f"threshold {self._threshold} needs the probability of fraud, and the model returned "
                f"{frame.columns[label]} beside {others}: {EXPECTED}"
            )
        if not self._others_logged:
            self._others_logged = True
            log.warning(
                "the model returns its label in the column %s; its other columns are not read: %s. To publish a "
                "probability of fraud, name it fraud_probability",
                frame.columns[label],
                others,
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
        # If all payments labelled 1 have a higher probability, the model has a high threshold.
        mostly_above &= self._lowest_fraud == float("inf")
        if self._highest_genuine > self._lowest_fraud or mostly_above:
            raise ModelOutputError(
                "the model's labels and probabilities contradict each other: it calls payments genuine whose "
                f"probability of fraud is {self._highest_genuine:g}. Is it the probability of the predicted class? "
                f"Otherwise {EXPECTED}"
            )


def _check_sum(genuine: npt.NDArray[np.float64], fraud: npt.NDArray[np.float64]) -> None:
    """Raise ModelOutputError unless the probabilities of both classes add up to 1."""
    import numpy as np

    probabilities_by_class(np.column_stack([genuine, fraud]))
