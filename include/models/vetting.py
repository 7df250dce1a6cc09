"""Check a model's output before its scores are used.

For every payment of a small batch, a margin, a percentage or the labels 1 and 2 can look like a probability or like 0
and 1. So a model whose output type is unknown first scores its stored example and generated variations of one payment.
And a payment's score must not depend on the other rows: a sample is scored again, in another order and alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from include.models.load import LoadedModel
    from include.models.scores import Scores

log = logging.getLogger(__name__)

# Plausible amounts, from a coffee to a flight, and places near and far.
_AMOUNTS = (1.0, 4.5, 12.0, 30.0, 75.0, 150.0, 300.0, 550.0, 800.0, 990.0)
_HOURS = (0, 3, 9, 14, 22)
_DEGREES = (0.0, 0.5, 2.0, 10.0)
_FACTORS = (0.0, -1.0, 0.5, 2.0)
_SAMPLE = 20
# Between batches of another size, sums of floats come out in another order.
_TOLERANCE = 1e-4


def check_outputs(model: LoadedModel, specimen: pd.DataFrame) -> None:
    """Raise ModelOutputError where an answer is outside of the contract for the model's stored example or for a made-up
    variation of `specimen`, a frame of one payment. A model that raises for one of these proves nothing."""
    for name, get in (("its stored example", model.input_example), ("a made-up payment", lambda: variations(specimen))):
        try:
            frame = get()
            if frame is not None and len(frame):
                model.predict(frame)
        except ModelOutputError as error:
            raise ModelOutputError(f"{error} (for {name})") from error
        except Exception as error:
            log.debug("%s cannot be asked: %s", name, type(error).__name__)


def check_row_independence(model: LoadedModel, frame: pd.DataFrame, scores: Scores) -> None:
    """Raise ModelOutputError if a payment of `frame` gets another score alone, or in another order of the rows."""
    import numpy as np

    sample = np.unique(np.linspace(0, len(frame) - 1, min(_SAMPLE, len(frame))).astype(int))[::-1]
    for places in (sample, sample[:1]):
        try:
            again = model.predict(frame.iloc[places].reset_index(drop=True))
        except ModelOutputError:
            raise
        except Exception as error:
            raise ModelOutputError(
                f"the model raises {type(error).__name__} for payments that it scored in a larger batch: a payment's "
                "score must not depend on the other rows of the frame"
            ) from error
        if not _same(_numbers(scores)[places], _numbers(again)):
            raise ModelOutputError(
                "the model gives a payment another score in another batch: the score of a row must depend on that row "
                "only"
            )


def variations(specimen: pd.DataFrame) -> pd.DataFrame:
    """Return copies of a frame of one payment with other amounts, hours and places, and other numbers in the columns
    that are not known. Texts stay, for a model may refuse one that it does not know."""
    import numpy as np
    import pandas as pd

    rows = len(_AMOUNTS) * len(_DEGREES)
    frame = pd.concat([specimen] * rows, ignore_index=True)
    number = np.arange(rows)
    for name in frame:
        column = frame[name]
        if column.dtype.kind not in "iuf" or column.isna().any():
            continue
        changed = _varied(str(name), column.to_numpy(), number)
        with np.errstate(invalid="ignore"):
            frame[name] = changed.astype(column.to_numpy().dtype)
    return frame


def _varied(name: str, values: npt.NDArray[Any], number: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    import numpy as np

    varied: npt.NDArray[Any] = values
    if name == "amt":
        varied = np.array(_AMOUNTS)[number % len(_AMOUNTS)]
    elif name == "unix_time":
        hour = 3_600_000 if np.abs(values).max() > 1e11 else 3_600
        varied = values + np.array(_HOURS)[number % len(_HOURS)] * hour
    elif name in ("lat", "long", "merch_lat", "merch_long"):
        sign = 1 if name.startswith("merch") else -1
        varied = values + sign * np.array(_DEGREES)[number // len(_AMOUNTS) % len(_DEGREES)]
    elif name == "city_pop":
        varied = values * np.array((1, 10, 100))[number % 3] // 10
    elif name not in ("cc_num", "zip"):
        # A prime step, so that columns of one kind do not change together.
        varied = values * np.array(_FACTORS)[(number * 7 + len(name)) % len(_FACTORS)]
    return varied


def _numbers(scores: Scores) -> npt.NDArray[Any]:
    return scores.prediction if scores.probability is None else scores.probability


def _same(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    import numpy as np

    return len(first) == len(second) and bool(np.allclose(first, second, rtol=0, atol=_TOLERANCE, equal_nan=True))
