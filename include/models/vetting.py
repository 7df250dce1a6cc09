"""Check a model's output before its scores are used.

For every payment of a small batch, a margin, a percentage or the labels 1 and 2 can look like a probability or like 0
and 1. So a model whose output type is unknown first scores its stored example and made-up variations of one payment.
A payment's score must not depend on the other rows either: a sample is scored again, in another order and alone.
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

# Plausible amounts from a coffee to a flight, hours of a day, and distances between card holder and merchant.
_AMOUNTS = (1.0, 4.5, 12.0, 30.0, 75.0, 150.0, 300.0, 550.0, 800.0, 990.0)
_HOURS = (0, 3, 9, 14, 22)
_DEGREES = (0.0, 0.5, 2.0, 10.0)
# Factors of at most 1, so that a count stays a plausible count and a share stays a share.
_FACTORS = (0.0, 0.25, 0.5, 1.0)
# With a larger share of frauds among ordinary payments, the output probably means the opposite.
_MAX_FRAUD_SHARE = 0.9
# Rows of one model that are scored again, in all its frames together and in each of them at most.
ROWS_TO_RESCORE = 20
# Sums of floats depend on the batch size, because it changes the order in which they are added.
_TOLERANCE = 1e-4


def check_outputs(model: LoadedModel, frames: Sequence[pd.DataFrame | None]) -> bool:
    """Score variations of some payments, given as frames of one row. Return whether the model scored any of them.

    If the model's output type is unknown, score its stored example, too. A model that raises an error for all of them
    is not checked.

    Raise ModelOutputError if an output is not 0, 1 or a probability. Raise it also if more than 90 % of the variations
    are scored as fraud and the model does not name its output a probability of fraud: it may be an outlier detector,
    which returns 1 for ordinary payments, or return the probability of genuine payments.
    """
    if not model.is_classifier:
        _score(model, model.input_example, "its stored example")
    results = [_score(model, partial(variations, frame), "a made-up payment") for frame in frames if frame is not None]
    scored = [scores for scores in results if scores is not None]
    if not scored:
        return False
    all_fraud = all(_share_of_fraud(scores) > _MAX_FRAUD_SHARE for scores in scored)
    if not model.is_classifier and not scored[0].is_named_fraud and all_fraud:
        what = "a probability above 0.5" if scored[0].probability is not None else "the label 1"
        raise ModelOutputError(
            f"the model returned {what} for nearly all of {sum(len(scores.prediction) for scores in scored)} made-up "
            "ordinary payments: is it the probability of genuine payments, or an outlier detector's 1 for ordinary "
            "ones? If it means fraud, return a DataFrame with a column `fraud_probability`"
        )
    return True


def _share_of_fraud(scores: Scores) -> float:
    """Return the share with a probability above 0.5, whatever the run's threshold is, or with the label 1."""
    if scores.probability is not None:
        return float((scores.probability > 0.5).mean())
    return float((scores.prediction == 1).mean())


def _score(model: LoadedModel, make_frame: Callable[[], pd.DataFrame | None], name: str) -> Scores | None:
    """Return the scores of the frame, None if there is no frame or the model raises an error for it."""
    try:
        frame = make_frame()
        return model.predict(frame) if frame is not None and len(frame) else None
    except ModelOutputError as error:
        raise ModelOutputError(f"{error} (for {name})") from error
    except Exception as error:
        log.debug("%s is not scored: %s", name, type(error).__name__)
        return None


def check_row_independence(model: LoadedModel, frame: pd.DataFrame, scores: Scores) -> int:
    """Score up to 20 rows again, in reverse order, and the last one alone; return their number.

    Raise ModelOutputError if a score differs from `scores`.
    """
    import numpy as np

    sample = np.unique(np.linspace(0, len(frame) - 1, min(ROWS_TO_RESCORE, len(frame))).astype(int))[::-1]
    threshold = 0.5 if model.run.threshold is None else model.run.threshold
    for rows in (sample, sample[:1]):
        try:
            rescored = model.predict(frame.iloc[rows].reset_index(drop=True))
        except ModelOutputError:
            raise
        except Exception as error:
            raise ModelOutputError(
                f"the model raises {type(error).__name__} for payments that it scored in a larger batch: a payment's "
                "score must not depend on the other rows of the frame"
            ) from error
        if not _are_same(_select_rows(scores, rows), rescored, threshold):
            raise ModelOutputError(
                "the model gives a payment another score in another batch: a payment's score must not depend on the "
                "other rows of the frame"
            )
    return len(sample)


def variations(payment: pd.DataFrame) -> pd.DataFrame:
    """Return 40 variations of a frame of one payment: other amounts, times and places.

    Numbers in unknown columns change, too. Texts stay, because a model may refuse one that it does not know.
    """
    import numpy as np
    import pandas as pd

    count = len(_AMOUNTS) * len(_DEGREES)
    frame = pd.concat([payment] * count, ignore_index=True)
    rows = np.arange(count)
    for name in frame:
        column = frame[name]
        if column.dtype.kind not in "iuf":
            continue
        varied = _vary(str(name), np.nan_to_num(column.to_numpy()), rows)
        with np.errstate(invalid="ignore"):
            frame[name] = varied.astype(column.to_numpy().dtype)
    return frame


def _vary(name: str, values: npt.NDArray[Any], rows: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Return other values for a column; `rows` are the row numbers."""
    import numpy as np

    varied: npt.NDArray[Any] = values
    if name == "amt":
        varied = np.array(_AMOUNTS)[rows % len(_AMOUNTS)]
    elif name == "unix_time":
        hour = 3_600_000 if np.abs(values).max() > 1e11 else 3_600
        varied = values + np.array(_HOURS)[rows % len(_HOURS)] * hour
    elif name in ("lat", "long", "merch_lat", "merch_long"):
        sign = 1 if name.startswith("merch") else -1
        varied = values + sign * np.array(_DEGREES)[rows // len(_AMOUNTS) % len(_DEGREES)]
    elif name == "city_pop":
        varied = values * np.array((1, 10, 100))[rows % 3] // 10
    elif name not in ("cc_num", "zip"):
        # The name seeds the generator: columns vary independently of each other, and each retry is the same.
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        varied = values * draw.choice(_FACTORS, len(rows))
    return varied


def _select_rows(scores: Scores, rows: npt.NDArray[np.intp]) -> Scores:
    from include.models.outputs import Scores

    probability = None if scores.probability is None else scores.probability[rows]
    return Scores(scores.prediction[rows], probability)


def _are_same(first: Scores, second: Scores, threshold: float) -> bool:
    """Return whether both have the same labels and, within the tolerance, the same probabilities."""
    import numpy as np

    differ = first.prediction != second.prediction
    if first.probability is None or second.probability is None:
        return first.probability is second.probability and not differ.any()
    if not np.allclose(first.probability, second.probability, rtol=0, atol=_TOLERANCE, equal_nan=True):
        return False
    # Rounding may change the label of a probability that equals the threshold.
    return not (differ & (np.abs(first.probability - threshold) > _TOLERANCE)).any()
