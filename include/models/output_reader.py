"""Read the output of a model that is not a known classifier: labels or probabilities, as an array or in named columns.

An output that fits two interpretations raises an error: the wrong one would be published as a score.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError
from include.models.agreement import Agreement
from include.models.output_columns import (
    EXPECTED_OUTPUT,
    column_meanings,
    column_values,
    find_column,
    has_unnamed_columns,
    sort_in_payment_order,
    to_frame,
    unclear_columns_error,
)
from include.models.output_names import Meaning, meaning_of_single_name, mentions_probability
from include.models.outputs import (
    Scores,
    check_count,
    parse_class_probabilities,
    parse_labels,
    parse_probabilities,
    scores_from_labels,
    scores_from_probability,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

log = logging.getLogger(__name__)

# With fewer genuine labels, high probabilities beside them do not prove a contradiction.
_MIN_GENUINE_LABELS = 20


class OutputReader:
    """Read the output of one model, call after call. `input_columns` are the columns of the frame that it takes.

    Labels and probabilities must agree. If the probability's name does not mention fraud, no payment labelled genuine
    may have a higher probability than one labelled fraud: otherwise the probability is of something else, such as the
    predicted class. If the name mentions fraud, payments labelled genuine must have the lower mean, because segments of
    payments may have thresholds of their own.

    Floats are labels as long as the model returns 0.0 and 1.0 only.
    """

    def __init__(self, threshold: float | None, input_columns: Collection[str] = ()) -> None:
        self._threshold = threshold
        self._input_columns = input_columns
        self._has_warned = False
        self._input_is_fraud: pd.Series | None = None
        self._returns_fractions = False
        self._highest_genuine = float("-inf")
        self._lowest_fraud = float("inf")
        self._genuine = 0
        self._genuine_above_half = 0
        self._agreement = Agreement()

    def read(self, output: Any, count: int, is_fraud: pd.Series | None = None) -> Scores:
        """Return the scores of `count` payments, in their order.

        `is_fraud` is the column of that name in the model's input, if it has one. Raise ModelOutputError if the output
        is neither labels nor probabilities, or fits two interpretations.
        """
        self._input_is_fraud = is_fraud
        try:
            return self._read(output, count)
        except (TypeError, ValueError) as error:
            # No payment can cause it. The error's own text is left out, because it may quote a payment.
            name = type(output).__name__
            raise ModelOutputError(
                f"the model returned a {name} that cannot be read ({type(error).__name__}): {EXPECTED_OUTPUT}"
            ) from error

    def _read(self, output: Any, count: int) -> Scores:
        import numpy as np
        import pandas as pd

        if isinstance(output, tuple):
            raise ModelOutputError(f"the model returned a tuple of {len(output)}: {EXPECTED_OUTPUT} in one DataFrame")
        if isinstance(output, dict) or (isinstance(output, list) and output and isinstance(output[0], dict)):
            output = to_frame(output)
        if isinstance(output, np.ma.MaskedArray):
            output = np.ma.filled(output.astype(float), np.nan)
        if isinstance(output, pd.DataFrame | pd.Series):
            output = sort_in_payment_order(output, count)
        if isinstance(output, pd.Series) and output.name is not None:
            output = output.to_frame()
        if isinstance(output, pd.DataFrame):
            return self._read_frame(output)
        if isinstance(output, pd.Series):
            output = column_values(output)
        array = np.asarray(output)
        check_count(array, count)
        return self._read_array(array)

    def _read_array(self, array: npt.NDArray[Any]) -> Scores:
        """Read an array of shape (payments,), (payments, 1), or (payments, 2) with the probability of each class."""
        import numpy as np

        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind == "f":
            return scores_from_probability(parse_class_probabilities(array)[:, 1], self._threshold)
        if array.dtype.kind == "O" and array.ndim == 1:
            array = self._to_floats(array)
        if array.dtype.kind in "fiu" and array.ndim == 1:
            if array.dtype.kind == "f":
                self._returns_fractions |= bool(((array != 0) & (array != 1) & ~np.isnan(array)).any())
            if self._returns_fractions:
                # Whole numbers included: Python's min(1, p) returns an int.
                return scores_from_probability(array, self._threshold)
        return scores_from_labels(array, None, self._threshold)

    def _to_floats(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return Python numbers, if one of them is a float, as floats with NaN for null. Return labels unchanged."""
        import numpy as np
        import pandas as pd

        is_null = np.asarray(pd.isna(array))
        values = array[~is_null]
        are_numbers = all(
            isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values
        )
        has_float = any(isinstance(value, float | np.floating) for value in values)
        # Nulls only are missing probabilities if the model returned probabilities in another call.
        if not are_numbers or not (has_float or (self._returns_fractions and is_null.all())):
            return array
        return np.where(is_null, np.nan, array).astype(float)

    def _read_frame(self, frame: pd.DataFrame) -> Scores:
        added = [position for position, name in enumerate(frame) if not self._is_input_column(frame, position, name)]
        if frame.shape[1] > 1 and added:
            # Input columns that the model returns are not part of its answer.
            frame = frame.iloc[:, added]
        if frame.shape[1] == 1:
            return self._read_single_column(frame)
        if has_unnamed_columns(frame):
            return self._read_array(frame.to_numpy())
        meanings = column_meanings(frame)
        label = find_column(frame, meanings, Meaning.LABEL)
        fraud = find_column(frame, meanings, Meaning.FRAUD, Meaning.PROBABILITY)
        if fraud is None:
            if label is None:
                raise unclear_columns_error(frame)
            return self._read_label(frame, label)
        values = column_values(frame.iloc[:, fraud])
        is_named_fraud = meanings[fraud] is Meaning.FRAUD
        genuine = find_column(frame, meanings, Meaning.GENUINE)
        if label is None and genuine is None and not mentions_probability(frame.columns[fraud]):
            return self._read_label_or_probability(values, is_named_fraud=is_named_fraud)
        probability = parse_probabilities(values)
        if genuine is not None:
            _check_sum(parse_probabilities(column_values(frame.iloc[:, genuine])), probability)
        return self._read_probability(frame, label, probability, is_named_fraud=is_named_fraud)

    def _is_input_column(self, frame: pd.DataFrame, position: int, name: object) -> bool:
        if name == "is_fraud" and self._input_is_fraud is not None:
            # A model may return its label under the name of this input column, whose values are null.
            returned = frame.iloc[:, position].reset_index(drop=True)
            return bool(self._input_is_fraud.reset_index(drop=True).equals(returned))
        return name in self._input_columns

    def _read_probability(
        self, frame: pd.DataFrame, label: int | None, probability: npt.NDArray[np.float64], *, is_named_fraud: bool
    ) -> Scores:
        if label is None:
            return replace(scores_from_probability(probability, self._threshold), is_named_fraud=is_named_fraud)
        labels = parse_labels(column_values(frame.iloc[:, label]))
        if is_named_fraud:
            self._agreement.add(labels, probability)
            self._agreement.check("the columns with the label and with the probability of fraud")
        else:
            self._check_order(labels, probability)
        if self._threshold is not None:
            return replace(scores_from_probability(probability, self._threshold), is_named_fraud=is_named_fraud)
        return Scores(labels, probability, is_named_fraud)

    def _read_single_column(self, frame: pd.DataFrame) -> Scores:
        name = frame.columns[0]
        meaning = Meaning.GENERIC if has_unnamed_columns(frame) else meaning_of_single_name(name, self._input_columns)
        if meaning in (Meaning.UNCLEAR, Meaning.GENUINE):
            raise unclear_columns_error(frame)
        values = column_values(frame.iloc[:, 0])
        is_named_fraud = meaning is Meaning.FRAUD
        if meaning in (Meaning.FRAUD, Meaning.PROBABILITY) and mentions_probability(name):
            return replace(scores_from_probability(values, self._threshold), is_named_fraud=is_named_fraud)
        return self._read_label_or_probability(values, is_named_fraud=is_named_fraud)

    def _read_label_or_probability(self, values: npt.NDArray[Any], *, is_named_fraud: bool) -> Scores:
        """Read a column such as `fraud`, whose name fits both."""
        scores = self._read_array(values)
        return scores if scores.probability is None else replace(scores, is_named_fraud=is_named_fraud)

    def _read_label(self, frame: pd.DataFrame, label: int) -> Scores:
        """Read the column at position `label`, and warn once that the others are not read."""
        values = column_values(frame.iloc[:, label])
        others = ", ".join(str(name) for position, name in enumerate(frame) if position != label)
        if self._threshold is not None and values.dtype.kind != "f":
            raise ModelOutputError(
                f"threshold {self._threshold} needs the probability of fraud, and the model returned "
                f"{frame.columns[label]} beside {others}: {EXPECTED_OUTPUT}"
            )
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "the model returns its label in the column %s; its other columns are not read: %s. To publish a "
                "probability of fraud, name it fraud_probability",
                frame.columns[label],
                others,
            )
        return self._read_array(values)

    def _check_order(self, labels: npt.NDArray[np.int8], probability: npt.NDArray[np.float64]) -> None:
        """Raise ModelOutputError if a payment labelled genuine has a higher probability than one labelled fraud."""
        import numpy as np

        known = ~np.isnan(probability)
        genuine, fraud = probability[known & (labels == 0)], probability[known & (labels == 1)]
        self._highest_genuine = max(self._highest_genuine, genuine.max(initial=float("-inf")))
        self._lowest_fraud = min(self._lowest_fraud, fraud.min(initial=float("inf")))
        self._genuine += len(genuine)
        self._genuine_above_half += int((genuine > 0.5).sum())
        mostly_above = self._genuine >= _MIN_GENUINE_LABELS and self._genuine_above_half > self._genuine / 2
        # If all payments labelled 1 have a higher probability, the model has a high threshold.
        mostly_above &= self._lowest_fraud == float("inf")
        if self._highest_genuine > self._lowest_fraud or mostly_above:
            raise ModelOutputError(
                "the model's labels and probabilities contradict each other: it labels payments genuine whose "
                f"probability of fraud is {self._highest_genuine:g}. Is it the probability of the predicted class? "
                f"Otherwise {EXPECTED_OUTPUT}"
            )


def _check_sum(genuine: npt.NDArray[np.float64], fraud: npt.NDArray[np.float64]) -> None:
    """Raise ModelOutputError unless the probabilities of both classes add up to 1."""
    import numpy as np

    parse_class_probabilities(np.column_stack([genuine, fraud]))
