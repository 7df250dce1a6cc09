"""Read the columns of a model's output: their order, their values, and what their names mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError
from include.models.output_names import Meaning, meanings_of_names, mentions_probability
from include.models.outputs import describe_array

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

EXPECTED_OUTPUT = "name the probability of fraud `fraud_probability` and the label `prediction`"
_MAX_NAMES = 10


def to_frame(output: Any) -> pd.DataFrame:
    """Return a dict or a list of dicts as a DataFrame. Raise ModelOutputError if pandas cannot convert it."""
    import pandas as pd

    try:
        return pd.DataFrame(output)
    except (ValueError, TypeError) as error:
        raise ModelOutputError(
            f"the model returned a {type(output).__name__} that cannot be converted to a DataFrame: {EXPECTED_OUTPUT}"
        ) from error


def sort_in_payment_order(output: Any, count: int) -> Any:
    """Return the rows of a DataFrame or Series sorted by index, which is 0, 1, 2, … in the frame that a model gets.

    Raise ModelOutputError if the index is not a permutation of [0, count).
    """
    import numpy as np

    if len(output) != count:
        raise ModelOutputError(f"the model returned {len(output)} rows for {count} payments")
    index = np.asarray(output.index)
    if np.array_equal(index, np.arange(count)):
        return output
    if index.dtype.kind in "iu" and np.array_equal(np.sort(index), np.arange(count)):
        return output.sort_index()
    raise ModelOutputError(
        f"the model returned a {type(output).__name__} whose index differs from its input's, so its rows cannot be "
        "matched to payments: keep the index of the frame, or return an array in its order"
    )


def has_unnamed_columns(frame: pd.DataFrame) -> bool:
    """Return whether pandas numbered the columns, as in MLflow's frames of PyTorch's and Keras's output."""
    import pandas as pd

    return isinstance(frame.columns, pd.RangeIndex) and (frame.columns.start, frame.columns.step) == (0, 1)


def column_meanings(frame: pd.DataFrame) -> list[Meaning]:
    """Return the meaning of each column by its name. If several name fraud, those with whole numbers are labels."""
    meanings = meanings_of_names(list(frame))
    if sum(meaning in (Meaning.FRAUD, Meaning.PROBABILITY) for meaning in meanings) > 1:
        for position, name in enumerate(frame):
            # Such as the column `fraud` beside `fraud_probability`.
            if meanings[position] is Meaning.FRAUD and _are_labels(column_values(frame.iloc[:, position]), name):
                meanings[position] = Meaning.LABEL
    return meanings


def find_column(frame: pd.DataFrame, meanings: list[Meaning], *wanted: Meaning) -> int | None:
    """Return the position of the column with one of the wanted meanings, or None.

    Raise ModelOutputError if there are several.
    """
    positions = [position for position, meaning in enumerate(meanings) if meaning in wanted]
    if len(positions) > 1:
        names = " and ".join(str(frame.columns[position]) for position in positions)
        raise ModelOutputError(f"the model returned the columns {names}, which mean the same: {EXPECTED_OUTPUT}")
    return positions[0] if positions else None


def _are_labels(values: npt.NDArray[Any], name: object) -> bool:
    """Return whether a column such as `fraud`, whose name fits labels and probabilities, holds labels."""
    return values.dtype.kind in "biu" and not mentions_probability(name)


def unclear_columns_error(frame: pd.DataFrame) -> ModelOutputError:
    """Return the error for columns whose names do not say what they hold."""
    names = ", ".join(str(name) for name in list(frame)[:_MAX_NAMES])
    return ModelOutputError(
        f"the model returned the columns {names}, whose names do not say what they hold: {EXPECTED_OUTPUT}"
    )


def column_values(column: Any) -> npt.NDArray[Any]:
    """Return a column's values as an array, with NaN where an extension type of pandas has NA.

    Raise ModelOutputError if a payment has several values.
    """
    import pandas as pd

    dtype = column.dtype
    if pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_float_dtype(dtype):
        return column.to_numpy(dtype=float, na_value=float("nan"))  # type: ignore[no-any-return]
    values = column.to_numpy()
    if values.ndim != 1:
        raise ModelOutputError(f"the model returned {describe_array(values)}: expected one value per payment")
    return values  # type: ignore[no-any-return]
