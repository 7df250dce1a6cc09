"""Check a model's output before its scores are used.

For every payment of a small batch, a margin, a percentage or the labels 1 and 2 can look like a probability or like 0
and 1. So a model whose output type is unknown first scores its stored example and generated variations of one payment.
And a payment's score must not depend on the other rows: a sample is scored again, in another order and alone.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from include.models.load import LoadedModel
    from include.models.outputs import Scores

log = logging.getLogger(__name__)

# Plausible amounts, from a coffee to a flight, and places near and far.
_AMOUNTS = (1.0, 4.5, 12.0, 30.0, 75.0, 150.0, 300.0, 550.0, 800.0, 990.0)
_HOURS = (0, 3, 9, 14, 22)
_DEGREES = (0.0, 0.5, 2.0, 10.0)
# Between 0 and the value: a count stays a count, a share a share.
_FACTORS = (0.0, 0.25, 0.5, 1.0)
# Above this share of fraud among ordinary payments, the output probably means the opposite.
_MOST = 0.9
# So many are asked for again, and no more of a frame.
ENOUGH_ROWS = 20
# Between batches of another size, sums of floats come out in another order.
_TOLERANCE = 1e-4


def check_outputs(model: LoadedModel, specimens: Sequence[pd.DataFrame | None]) -> bool:
    """Score generated variations of some payments, each a frame of one, and the stored example of a model whose output
    type is unknown. Return whether it scored any variation: a model that raises for them proves nothing.

    Raise ModelOutputError if an output is not 0, 1 or a probability, or if a model that does not name a probability of
    fraud calls more than 90 % of these payments fraud: it may be an outlier detector, whose 1 is normal, or return the
    probability of genuine payments.
    """
    if not model.is_classifier:
        _answer(model, model.input_example, "its stored example")
    varied = [
        _answer(model, partial(variations, specimen), "a made-up payment")
        for specimen in specimens
        if specimen is not None
    ]
    made_up = [answer for answer in varied if answer is not None]
    if not made_up:
        return False
    if not model.is_classifier and not made_up[0].is_named and all(_share_of_fraud(one) > _MOST for one in made_up):
        what = "a probability above 0.5" if made_up[0].probability is not None else "the label 1"
        raise ModelOutputError(
            f"the model returned {what} for nearly all of {sum(len(one.prediction) for one in made_up)} made-up "
            "ordinary payments: is it of genuine payments, or is 1 what an outlier detector calls normal? If it is of "
            "fraud, return a DataFrame with a column `fraud_probability`"
        )
    return True


def _share_of_fraud(scores: Scores) -> float:
    """Return the share of payments with a probability above 0.5, or with the label 1, whatever the run's threshold."""
    if scores.probability is not None:
        return float((scores.probability > 0.5).mean())
    return float((scores.prediction == 1).mean())


def _answer(model: LoadedModel, get: Callable[[], pd.DataFrame | None], name: str) -> Scores | None:
    try:
        frame = get()
        return model.predict(frame) if frame is not None and len(frame) else None
    except ModelOutputError as error:
        raise ModelOutputError(f"{error} (for {name})") from error
    except Exception as error:
        log.debug("%s cannot be asked: %s", name, type(error).__name__)
        return None


def check_row_independence(model: LoadedModel, frame: pd.DataFrame, scores: Scores) -> int:
    """Score up to 20 rows again, in reverse order, and the last one alone; return their number. Raise ModelOutputError
    if a score changes."""
    import numpy as np

    sample = np.unique(np.linspace(0, len(frame) - 1, min(ENOUGH_ROWS, len(frame))).astype(int))[::-1]
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
        if not _same(_rows(scores, places), again, 0.5 if model.run.threshold is None else model.run.threshold):
            raise ModelOutputError(
                "the model gives a payment another score in another batch: the score of a row must depend on that row "
                "only"
            )
    return len(sample)


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
        if column.dtype.kind not in "iuf":
            continue
        changed = _varied(str(name), np.nan_to_num(column.to_numpy()), number)
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
        # By name, so that no two columns change together, and that each try is the same.
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        varied = values * draw.choice(_FACTORS, len(number))
    return varied


def _rows(scores: Scores, places: npt.NDArray[np.intp]) -> Scores:
    from include.models.outputs import Scores

    probability = None if scores.probability is None else scores.probability[places]
    return Scores(scores.prediction[places], probability)


def _same(first: Scores, second: Scores, limit: float) -> bool:
    """Return whether both give the same labels and probabilities; within a rounding of the limit labels may differ."""
    import numpy as np

    differ = first.prediction != second.prediction
    if first.probability is None or second.probability is None:
        return first.probability is second.probability and not differ.any()
    if not np.allclose(first.probability, second.probability, rtol=0, atol=_TOLERANCE, equal_nan=True):
        return False
    # Where a probability lies at the limit, its rounding decides.
    return not (differ & (np.abs(first.probability - limit) > _TOLERANCE)).any()
