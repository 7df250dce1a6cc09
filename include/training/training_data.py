"""Read, validate and split payments to train on. The held-out part is later in time than the training part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from include.errors import TrainingError
from include.payments.columns import COLUMNS, NUMBERS, PREDICTION
from include.payments.csv_text import csv_text

TIME = "trans_date_trans_time"
HELD_OUT_SHARE = 0.2
SMOTE_NEIGHBOURS = 5
MIN_TRAINING_PER_CLASS = SMOTE_NEIGHBOURS + 1
"""SMOTE interpolates between a fraud and its five nearest neighbours."""
MIN_HELD_OUT_PER_CLASS = 10
"""Applies if the payments come from two sources: with fewer, the metrics say nothing about a model."""


@dataclass(frozen=True)
class DataSource:
    """Name where payments come from. `sha256` is the digest of the file, as `sha256sum` prints it, or of the frame."""

    name: str
    sha256: str


@dataclass(frozen=True)
class DataSplit:
    """Hold the two parts of the payments, each in the order of time."""

    train: pd.DataFrame
    held_out: pd.DataFrame

    def to_params(self) -> dict[str, Any]:
        """Return the counts and time spans as parameters of an MLflow run."""
        params: dict[str, Any] = {}
        for part, frame in (("train", self.train), ("held_out", self.held_out)):
            params |= {
                f"{part}_payments": len(frame),
                f"{part}_frauds": int(frame[PREDICTION].sum()),
                f"{part}_from": str(frame[TIME].iloc[0]),
                f"{part}_to": str(frame[TIME].iloc[-1]),
            }
        return params


def read_csv(path: Path) -> tuple[pd.DataFrame, DataSource]:
    """Read a CSV file of payments, which may be compressed. Leave out an unnamed index column of public data sets.

    Only an empty field is a missing value, as for `fraud produce csv`: NA, None, null and nan are texts, and thus
    errors in a column of numbers. Raise TrainingError if the file is empty or not CSV.
    """
    texts = dict.fromkeys((name for name in COLUMNS if name not in NUMBERS), "str")
    try:
        with csv_text(path, TrainingError) as text:
            frame = pd.read_csv(text, dtype=texts, low_memory=False, keep_default_na=False, na_values=[""])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except pd.errors.EmptyDataError as error:
        raise TrainingError(f"{path}: the file is empty; a CSV of payments is needed") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not a CSV file in UTF-8: {error}") from error
    unnamed = [name for name in frame.columns if name.startswith("Unnamed:")]
    return frame.drop(columns=unnamed), DataSource(path.name, digest)


def digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the frame's column names and values."""
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashlib.sha256(",".join(frame.columns).encode() + rows.tobytes()).hexdigest()


def validate(frame: pd.DataFrame, columns: tuple[str, ...], numeric: tuple[str, ...]) -> pd.DataFrame:
    """Return the payments with the `numeric` columns and is_fraud as numbers, indexed from 0.

    Raise TrainingError if a column is missing or holds an invalid value.
    """
    missing = [name for name in (*columns, PREDICTION) if name not in frame.columns]
    if missing:
        raise TrainingError(f"the payments lack the column {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if frame.empty:
        raise TrainingError("there are no payments to train on: 0 rows")
    frame = frame.reset_index(drop=True)
    for name in numeric:
        numbers = pd.to_numeric(frame[name], errors="coerce").astype("float64")
        is_infinite = numbers.abs() == float("inf")
        _raise_if_any(name, (numbers.isna() & frame[name].notna()) | is_infinite, "is not a number")
        frame[name] = numbers
    for name in (TIME, "dob"):
        if name in columns:
            is_invalid = parse_dates(frame[name]).isna() & frame[name].notna()
            _raise_if_any(name, is_invalid, "is not a date like 2024-10-31 15:56:25")
    _raise_if_any(TIME, frame[TIME].isna(), "is empty")
    labels = pd.to_numeric(frame[PREDICTION], errors="coerce")
    _raise_if_any(PREDICTION, ~labels.isin([0, 1]), "is neither 0 nor 1")
    frame[PREDICTION] = labels.astype("int64")
    return frame


def parse_dates(texts: pd.Series[Any]) -> pd.Series[pd.Timestamp]:
    """Return texts like 2024-10-31 15:56:25 as times in UTC, and NaT for any other text."""
    return pd.to_datetime(texts.astype("str"), format="ISO8601", utc=True, errors="coerce")


def split(frame: pd.DataFrame, held_out: float = HELD_OUT_SHARE, *, second_source_rows: int = 0) -> DataSplit:
    """Hold out the latest payments: each is later than every payment of the training part, whatever its source.

    `held_out` is a share in (0, 1). The last `second_source_rows` rows come from a second source. Each source has a
    time at which its latest share begins. The later of the two times is the cut-off for both sources, so that the model
    learns from both. If too few payments of a class are that late, the cut-off is earlier, but not before the other
    time. Raise TrainingError if a part has too few payments of a class.
    """
    times = parse_dates(frame[TIME])
    boundary = len(frame) - second_source_rows
    sources = [source for source in (times.iloc[:boundary], times.iloc[boundary:]) if len(source)]
    starts = [source.sort_values(kind="stable").iloc[int(len(source) * (1 - held_out))] for source in sources]
    latest_allowed = [_start_of_latest(times[frame[PREDICTION] == label], MIN_HELD_OUT_PER_CLASS) for label in (0, 1)]
    cut_off = max(min(starts), min(max(starts), *latest_allowed))
    # If all of the later source is held out anyway, a later cut-off adds none of its payments to the training part.
    if cut_off <= sources[starts.index(max(starts))].min():
        cut_off = min(starts)
    frame = frame.iloc[times.argsort(kind="stable")]
    is_held_out = (times[frame.index] >= cut_off).to_numpy()
    parts = DataSplit(train=frame[~is_held_out], held_out=frame[is_held_out])
    for name, part, minimum in (("training", parts.train, MIN_TRAINING_PER_CLASS), ("held-out", parts.held_out, 1)):
        frauds = int(part[PREDICTION].sum())
        if min(frauds, len(part) - frauds) < minimum:
            raise TrainingError(
                f"too few payments: of {len(frame)}, {len(part)} are in the {name} part, {frauds} frauds and "
                f"{len(part) - frauds} genuine ones; at least {minimum} of each are needed there"
            )
    return parts


def _start_of_latest(times: pd.Series[pd.Timestamp], count: int) -> pd.Timestamp:
    """Return the time of the earliest of the latest `count` payments, or the minimum time if there are fewer."""
    latest = times.nlargest(count)
    return latest.min() if len(latest) == count else pd.Timestamp.min.tz_localize("UTC")


def _raise_if_any(name: str, is_invalid: pd.Series[bool], problem: str) -> None:
    """Raise TrainingError, which gives the row but not the value: payment data must not reach a log."""
    if is_invalid.any():
        raise TrainingError(
            f"{name} {problem} in {int(is_invalid.sum())} of {len(is_invalid)} payments, first in row "
            f"{is_invalid.argmax() + 1}"
        )
