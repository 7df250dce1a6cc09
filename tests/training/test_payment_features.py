from __future__ import annotations

import ast
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.models import payment_features
from include.models.payment_features import COLUMNS, PaymentFeatures

PAYMENT: dict[str, Any] = {
    "trans_date_trans_time": "2024-10-31 23:30:00",
    "category": "home",
    "amt": 99.0,
    "gender": "F",
    "lat": 52.52,
    "long": 13.405,
    "city_pop": 999,
    "dob": "1964-10-31",
    "merch_lat": 48.8566,
    "merch_long": 2.3522,
}


def frame(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([PAYMENT | change for change in changes], columns=list(COLUMNS), dtype=object)


@pytest.fixture(scope="module")
def features() -> PaymentFeatures:
    return PaymentFeatures().fit(frame({}, {"category": "travel"}))


def transformed(features: PaymentFeatures, payments: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(features.transform(payments), columns=features.get_feature_names_out())


def test_features_equal_those_computed_by_hand(features: PaymentFeatures) -> None:
    row = transformed(features, frame({})).iloc[0]

    assert row["log_amount"] == pytest.approx(np.log(100))
    assert row["hours_since_noon"] == 11.5
    assert row["night"] == 1
    assert row["weekday"] == 3  # a Thursday
    assert row["age_years"] == pytest.approx(60, abs=0.01)
    assert row["distance_km"] == pytest.approx(877.5, abs=1)  # Berlin to Paris
    assert row["log_city_pop"] == pytest.approx(np.log(1000))
    assert row[["category_home", "category_travel", "gender_F", "gender_M"]].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("time", "night"), [("21:59:59", 0), ("22:00:00", 1), ("03:59:59", 1), ("04:00:00", 0)])
def test_night_is_from_ten_to_four(features: PaymentFeatures, time: str, night: int) -> None:
    assert transformed(features, frame({"trans_date_trans_time": f"2024-10-31 {time}"}))["night"].tolist() == [night]


def test_features_of_a_row_do_not_depend_on_other_rows(payments: pd.DataFrame) -> None:
    features = PaymentFeatures().fit(payments)
    together = features.transform(payments)

    # A frame of one block has strided columns, for which numpy runs other code.
    strided = payments[list(COLUMNS)].astype(object)
    strided = pd.DataFrame(strided.to_numpy(), columns=strided.columns)
    alone = np.vstack([features.transform(payments.iloc[[i]]) for i in range(200)])

    assert (features.transform(strided) == together).all()
    assert (alone == together[:200]).all()


def test_columns_are_found_in_any_frame_in_any_order(features: PaymentFeatures) -> None:
    plain = frame({})
    other = plain[list(reversed(COLUMNS))].assign(cc_num="4" * 19, street="6881 King Isle")

    assert (features.transform(other) == features.transform(plain)).all()
    assert list(features.feature_names_in_) == list(COLUMNS)
    assert not {"cc_num", "zip", "trans_num", "first", "last", "street", "unix_time"} & set(COLUMNS)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_values_become_nan_or_zeros(features: PaymentFeatures, missing: Any) -> None:
    row = transformed(features, frame(dict.fromkeys(COLUMNS, missing))).iloc[0]

    assert row[list(payment_features.MEASURES)].isna().all()
    assert (row.drop(list(payment_features.MEASURES)) == 0).all()


def test_missing_value_does_not_change_other_payments(features: PaymentFeatures) -> None:
    rows = features.transform(frame({}, {"dob": None, "amt": None}, {}))

    assert (rows[0] == rows[2]).all()
    assert np.isnan(rows[1]).sum() == 2


@pytest.mark.parametrize("value", ["spaceship", 5, "HOME"])
def test_unknown_category_or_gender_becomes_zeros(features: PaymentFeatures, value: Any) -> None:
    row = transformed(features, frame({"category": value, "gender": value})).iloc[0]

    assert row.filter(regex="category_|gender_").sum() == 0


@pytest.mark.parametrize(
    ("column", "value", "same_as"),
    [
        ("amt", "99.0", 99.0),
        ("city_pop", "999", 999),
        ("trans_date_trans_time", "2024-10-31T23:30:00", "2024-10-31 23:30:00"),
        ("trans_date_trans_time", "2024-10-31 23:30:00.250", "2024-10-31 23:30:00"),
        ("trans_date_trans_time", "2024-11-01 01:30:00+02:00", "2024-10-31 23:30:00"),
        ("trans_date_trans_time", datetime(2024, 10, 31, 23, 30), "2024-10-31 23:30:00"),  # noqa: DTZ001
        ("dob", date(1964, 10, 31), "1964-10-31"),
    ],
)
def test_other_spellings_of_a_value_are_equal(features: PaymentFeatures, column: str, value: Any, same_as: Any) -> None:
    rows = features.transform(frame({column: value}, {column: same_as}))

    assert (rows[0] == rows[1]).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("amt", "sixteen"),
        ("amt", ""),
        ("amt", float("inf")),
        ("amt", 10**400),
        ("lat", [41.5]),
        ("trans_date_trans_time", "31/10/2024 23:30"),
        ("trans_date_trans_time", "2024-13-31 23:30:00"),
        ("trans_date_trans_time", ""),
        ("trans_date_trans_time", "now"),
        ("trans_date_trans_time", 1730390185811),
        ("dob", "unknown"),
        ("dob", 19641031),
        ("category", ["home"]),
        ("gender", {"value": "F"}),
    ],
)
def test_error_for_invalid_value_names_the_column_only(features: PaymentFeatures, column: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{column}: ") as raised:
        features.transform(frame({}, {column: value}))

    assert not str(value) or str(value) not in str(raised.value)
    assert raised.value.__cause__ is None


def test_error_names_missing_column(features: PaymentFeatures) -> None:
    with pytest.raises(ValueError, match="merch_lat is missing"):
        features.transform(frame({}).drop(columns="merch_lat"))
    with pytest.raises(ValueError, match="DataFrame"):
        features.transform(frame({}).to_numpy())


def test_module_imports_only_libraries_of_the_model() -> None:
    tree = ast.parse(Path(str(payment_features.__file__)).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported - sys.stdlib_module_names == {"numpy", "pandas", "sklearn"}
