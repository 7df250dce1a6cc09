"""Payments to learn from: read, checked, and split so that the held-out part is later in time."""

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
"""SMOTE looks for a fraud's five nearest others."""
MIN_HELD_OUT_PER_CLASS = 10
"""Of each class, where payments come from two sources: fewer say nothing about a model."""


@dataclass(frozen=True)
class DataSource:
    """Where payments came from; the sha256 is the file's, as `sha256sum` prints it, or else the frame's."""

    name: str
    sha256: str


@dataclass(frozen=True)
class DataSplit:
    train: pd.DataFrame
    held_out: pd.DataFrame

    def describe(self) -> dict[str, Any]:
        """Counts and time spans, as MLflow parameters."""
        described: dict[str, Any] = {}
        for part, frame in (("train", self.train), ("held_out", self.held_out)):
            described |= {
                f"{part}_payments": len(frame),
                f"{part}_frauds": int(frame[PREDICTION].sum()),
                f"{part}_from": str(frame[TIME].iloc[0]),
                f"{part}_to": str(frame[TIME].iloc[-1]),
            }
        return described


def read_csv(path: Path) -> tuple[pd.DataFrame, DataSource]:
    """A file with the payments' columns, packed or not. An unnamed index column, as in public data sets, is left out.

    Only an empty field counts as missing, as for `fraud produce csv`: NA, None, null and nan are text, and errors in a
    column of numbers.
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
        raise TrainingError(f"{path} is no CSV file in UTF-8: {error}") from error
    unnamed = [name for name in frame.columns if name.startswith("Unnamed:")]
    return frame.drop(columns=unnamed), DataSource(path.name, digest)


def digest(frame: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashlib.sha256(",".join(frame.columns).encode() + rows.tobytes()).hexdigest()


def validate(frame: pd.DataFrame, columns: tuple[str, ...], numeric: tuple[str, ...]) -> pd.DataFrame:
    """The payments with `numeric` columns and is_fraud as numbers; TrainingError names what cannot be used."""
    missing = [name for name in (*columns, PREDICTION) if name not in frame.columns]
    if missing:
        raise TrainingError(f"the payments lack the column {', '.join(missing)}; there is {', '.join(frame.columns)}")
    if frame.empty:
        raise TrainingError("there are no payments to train on: 0 rows")
    frame = frame.reset_index(drop=True)
    for name in numeric:
        numbers = pd.to_numeric(frame[name], errors="coerce").astype("float64")
        infinite = numbers.abs() == float("inf")
        _raise_if_any(name, (numbers.isna() & frame[name].notna()) | infinite, "holds no number")
        frame[name] = numbers
    for name in (TIME, "dob"):
        if name in columns:
            _raise_if_any(
                name, parse_dates(frame[name]).isna() & frame[name].notna(), "holds no date like 2024-10-31 15:56:25"
            )
    _raise_if_any(TIME, frame[TIME].isna(), "is empty")
    labels = pd.to_numeric(frame[PREDICTION], errors="coerce")
    _raise_if_any(PREDICTION, ~labels.isin([0, 1]), "is neither 0 nor 1")
    frame[PREDICTION] = labels.astype("int64")
    return frame


def parse_dates(texts: pd.Series[Any]) -> pd.Series[pd.Timestamp]:
    """NaT where a text is no date like 2024-10-31 15:56:25."""
    return pd.to_datetime(texts.astype("str"), format="ISO8601", utc=True, errors="coerce")


def split(frame: pd.DataFrame, held_out: float = HELD_OUT_SHARE, *, apart: int = 0) -> DataSplit:
    """Hold out the latest payments: each is later than every payment of the training part, wherever it comes from.

    `apart`: so many rows at the end are from another source. Each source has a time from which its latest share
    begins; the later of the two is the cut-off for both, so that the model learns from either source. Where too few
    payments of one class are that late, the cut-off is earlier, down to the other of the two times.
    """
    times = parse_dates(frame[TIME])
    sources = [some for some in (times.iloc[: len(frame) - apart], times.iloc[len(frame) - apart :]) if len(some)]
    starts = [some.sort_values(kind="stable").iloc[int(len(some) * (1 - held_out))] for some in sources]
    enough = [_start_of_latest(times[frame[PREDICTION] == label], MIN_HELD_OUT_PER_CLASS) for label in (0, 1)]
    cut_off = max(min(starts), min(max(starts), *enough))
    # A cut-off before all of the later source costs held-out payments and gains no training ones.
    if cut_off <= sources[starts.index(max(starts))].min():
        cut_off = min(starts)
    frame = frame.iloc[times.argsort(kind="stable")]
    held = (times[frame.index] >= cut_off).to_numpy()
    parts = DataSplit(train=frame[~held], held_out=frame[held])
    for name, part, least in (("training", parts.train, MIN_TRAINING_PER_CLASS), ("held-out", parts.held_out, 1)):
        frauds = int(part[PREDICTION].sum())
        if min(frauds, len(part) - frauds) < least:
            raise TrainingError(
                f"too few payments: of {len(frame)}, {len(part)} are in the {name} part, {frauds} frauds and "
                f"{len(part) - frauds} genuine ones; at least {least} of each are needed there"
            )
    return parts


def _start_of_latest(times: pd.Series[pd.Timestamp], count: int) -> pd.Timestamp:
    """Return the time from which on there are so many, or else the first of all times."""
    latest = times.nlargest(count)
    return latest.min() if len(latest) == count else pd.Timestamp.min.tz_localize("UTC")


def _raise_if_any(name: str, bad: pd.Series[bool], why: str) -> None:
    """Says where, not what: a payment's values have no place in messages."""
    if bad.any():
        raise TrainingError(f"{name} {why} in {int(bad.sum())} of {len(bad)} payments, first in row {bad.argmax() + 1}")
