"""The columns of a model's output: their meanings by name, their values, and their rows in the payments' order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError
from include.models.output_names import Meaning, meanings_of, mentions_probability
from include.models.outputs import form

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

EXPECTED = "name the probability of fraud `fraud_probability` and the label `prediction`"


def to_frame(output: Any) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.DataFrame(output)
    except (ValueError, TypeError) as error:
        raise ModelOutputError(
            f"the model returned a {type(output).__name__} that cannot be converted to a DataFrame: {EXPECTED}"
        ) from error


def in_payment_order(output: Any, count: int) -> Any:
    """Sort the rows by index, which was 0, 1, 2, … in the frame that the model got."""
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


def is_unnamed(frame: pd.DataFrame) -> bool:
    """Return whether pandas has numbered the columns. MLflow makes such a frame of what PyTorch and Keras return."""
    import pandas as pd

    return isinstance(frame.columns, pd.RangeIndex) and (frame.columns.start, frame.columns.step) == (0, 1)


def column_meanings(frame: pd.DataFrame) -> list[Meaning]:
    found = meanings_of(list(frame))
    if sum(one in (Meaning.FRAUD, Meaning.PROBABILITY) for one in found) > 1:
        for place, name in enumerate(frame):
            # `fraud` beside `fraud_probability`.
            if found[place] is Meaning.FRAUD and _are_labels(column_values(frame.iloc[:, place]), name):
                found[place] = Meaning.LABEL
    return found


def only_column(frame: pd.DataFrame, meanings: list[Meaning], *wanted: Meaning) -> int | None:
    """Return the place of the only column with one of the meanings."""
    found = [place for place, meaning in enumerate(meanings) if meaning in wanted]
    if len(found) > 1:
        both = " and ".join(str(frame.columns[place]) for place in found)
        raise ModelOutputError(f"the model returned the columns {both}, which say the same thing: {EXPECTED}")
    return found[0] if found else None


def _are_labels(values: npt.NDArray[Any], name: object) -> bool:
    """Return whether a column such as `fraud`, whose name may mean either, holds labels."""
    return values.dtype.kind in "biu" and not mentions_probability(name)


def unclear_columns(frame: pd.DataFrame) -> ModelOutputError:
    names = ", ".join(str(name) for name in list(frame)[:10])
    return ModelOutputError(f"the model returned the columns {names}, which do not say what they are: {EXPECTED}")


def column_values(column: Any) -> npt.NDArray[Any]:
    """Return a column's values; NaN where an extension type of pandas has NA."""
    import pandas as pd

    dtype = column.dtype
    if pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_float_dtype(dtype):
        return column.to_numpy(dtype=float, na_value=float("nan"))  # type: ignore[no-any-return]
    values = column.to_numpy()
    if values.ndim != 1:
        raise ModelOutputError(f"the model returned {form(values)}: one value a payment was expected")
    return values  # type: ignore[no-any-return]
