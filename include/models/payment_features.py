"""What a payment tells a model, computed from the payment's own columns inside the logged pipeline.

A copy of this file is logged with every model, so a model always computes what it was trained on. Hence it imports
nothing but numpy, pandas and scikit-learn, and a change here reaches only the models trained afterwards.

Every row is computed by itself: a payment scores the same alone and among a million. A missing value becomes NaN
(the pipeline fills it in), an unknown category or gender becomes zeros, and a value that is no number or no date
raises ValueError. Messages name the column only, because they end in logs.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

COLUMNS = (
    "trans_date_trans_time",
    "category",
    "amt",
    "gender",
    "lat",
    "long",
    "city_pop",
    "dob",
    "merch_lat",
    "merch_long",
)
MEASURES = ("log_amount", "hours_since_noon", "night", "weekday", "age_years", "distance_km", "log_city_pop")
GENDERS = ("F", "M")
EARTH_RADIUS_KM = 6371.0088

Floats = npt.NDArray[np.float64]


class PaymentFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Takes a DataFrame that has COLUMNS, in any order and among any others; learns only the categories there are."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> PaymentFeatures:  # noqa: N803
        self.feature_names_in_ = np.array(COLUMNS, dtype=object)
        self.n_features_in_ = len(COLUMNS)
        self.categories_ = sorted({value for value in _column(X, "category") if isinstance(value, str)})
        return self

    def transform(self, X: pd.DataFrame) -> Floats:  # noqa: N803
        check_is_fitted(self)
        when = _instants(X, "trans_date_trans_time")
        born = _instants(X, "dob")
        hour = (when - when.astype("datetime64[D]")) / np.timedelta64(1, "h")
        measures = {
            "log_amount": _signed_log(_numbers(X, "amt")),
            # Counted from noon, the night is one stretch: between 23:00 and 01:00, SMOTE invents 00:00 and not noon.
            "hours_since_noon": (hour - 12) % 24,
            "night": np.where(np.isnan(hour), np.nan, (hour >= 22) | (hour < 4)),
            "weekday": _weekday(when),
            "age_years": (when - born) / np.timedelta64(1, "D") / 365.2425,
            "distance_km": _distance_km(*(_numbers(X, name) for name in ("lat", "long", "merch_lat", "merch_long"))),
            "log_city_pop": _signed_log(_numbers(X, "city_pop")),
        }
        return np.hstack(
            [
                np.column_stack([measures[name] for name in MEASURES]),
                _one_hot(X, "category", self.categories_),
                _one_hot(X, "gender", GENDERS),
            ]
        )

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        check_is_fitted(self)
        names = [*MEASURES, *(f"category_{name}" for name in self.categories_), *(f"gender_{name}" for name in GENDERS)]
        return np.array(names, dtype=object)


def _column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"a pandas DataFrame with the columns {', '.join(COLUMNS)} is needed")
    if name not in frame.columns:
        raise ValueError(f"the column {name} is missing")
    return frame[name]


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    column = _column(frame, name)
    try:
        numbers = column.to_numpy(dtype="float64", na_value=np.nan)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: a value is no number") from None
    if np.isinf(numbers).any():
        raise ValueError(f"{name}: a value is no finite number")
    # numpy rounds the last digit of strided arrays differently, and a row alone is never strided.
    return np.ascontiguousarray(numbers)


def _instants(frame: pd.DataFrame, name: str) -> npt.NDArray[np.datetime64]:
    """ISO 8601 text or datetimes; where there is a UTC offset, the time in UTC."""
    column = _column(frame, name)
    if not pd.api.types.is_datetime64_any_dtype(column):
        for value in column[column.notna()].tolist():
            # pandas would take a number for nanoseconds and "now" for the present.
            if not (isinstance(value, str) and value[:1].isdigit()) and not isinstance(value, date):
                raise ValueError(f"{name}: a value is no date")
    try:
        instants = pd.to_datetime(column, format="ISO8601", utc=True)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: a value is no date") from None
    return instants.dt.tz_localize(None).to_numpy().astype("datetime64[s]")


def _weekday(when: npt.NDArray[np.datetime64]) -> Floats:
    """Monday is 0; the epoch's first day was a Thursday."""
    days: Floats = (when.astype("datetime64[D]") - np.datetime64(0, "D")) / np.timedelta64(1, "D")
    return (days + 3) % 7


def _signed_log(numbers: Floats) -> Floats:
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def _distance_km(lat: Floats, long: Floats, other_lat: Floats, other_long: Floats) -> Floats:
    """Great-circle distance (haversine)."""
    phi, other_phi = np.radians(lat), np.radians(other_lat)
    chord = (
        np.sin((other_phi - phi) / 2) ** 2
        + np.cos(phi) * np.cos(other_phi) * np.sin(np.radians(other_long - long) / 2) ** 2
    )
    angle: Floats = 2 * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))
    return EARTH_RADIUS_KM * angle


def _one_hot(frame: pd.DataFrame, name: str, known: tuple[str, ...] | list[str]) -> Floats:
    column = _column(frame, name).astype(object)
    try:
        places = pd.Index(known, dtype=object).get_indexer(pd.Index(column, dtype=object))
    except TypeError:
        raise ValueError(f"{name}: a value is no text") from None
    found = places >= 0
    one_hot = np.zeros((len(column), len(known)))
    one_hot[np.flatnonzero(found), places[found]] = 1
    return one_hot
