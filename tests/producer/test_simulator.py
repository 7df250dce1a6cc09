"""Simulated payments: their form and determinism, and frauds that a model can find but not perfectly."""

from __future__ import annotations

import datetime
import re

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from include.errors import SettingError
from include.producer.simulator import Simulator

TYPES = {
    "trans_date_trans_time": str,
    "cc_num": int,
    "merchant": str,
    "category": str,
    "amt": float,
    "first": str,
    "last": str,
    "gender": str,
    "street": str,
    "city": str,
    "state": str,
    "zip": int,
    "lat": float,
    "long": float,
    "city_pop": int,
    "job": str,
    "dob": str,
    "trans_num": str,
    "unix_time": int,
    "merch_lat": float,
    "merch_long": float,
    "is_fraud": int,
}


@pytest.fixture(scope="module")
def two_days() -> pd.DataFrame:
    return Simulator(seed=7, fraud_share=0.02).frame(days=2)


def distances(frame: pd.DataFrame) -> np.ndarray:
    """Return the degrees from home to merchant, precise enough to tell near from far."""
    return np.hypot(frame["merch_lat"] - frame["lat"], frame["merch_long"] - frame["long"]).to_numpy()


def test_values_have_the_types_of_live_payments() -> None:
    for row in Simulator(seed=1).payments(500):
        assert dict(zip(TYPES, map(type, row), strict=True)) == TYPES


def test_values_are_in_plausible_ranges(two_days: pd.DataFrame) -> None:
    assert list(two_days.columns) == list(TYPES)
    assert two_days["trans_num"].is_unique
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in two_days["trans_num"])
    assert two_days["merchant"].str.startswith("fraud_").all()
    assert (two_days["amt"] >= 1).all()
    assert (two_days["amt"] == two_days["amt"].round(2)).all()
    assert two_days["lat"].between(24, 50).all()
    assert two_days["long"].between(-127, -65).all()
    assert pd.to_datetime(two_days["dob"], format="%Y-%m-%d").between("1929-01-01", "2010-01-01").all()


def test_both_times_are_equal_in_utc(two_days: pd.DataFrame) -> None:
    written = pd.to_datetime(two_days["trans_date_trans_time"], format="%Y-%m-%d %H:%M:%S")
    assert (written == pd.to_datetime(two_days["unix_time"] // 1000, unit="s")).all()
    assert two_days["unix_time"].is_monotonic_increasing
    assert written.iloc[0] >= pd.Timestamp("2025-01-01")
    assert written.iloc[-1] < pd.Timestamp("2025-01-03")


def test_each_card_belongs_to_one_person(two_days: pd.DataFrame) -> None:
    person = ["first", "last", "gender", "street", "city", "state", "zip", "lat", "long", "city_pop", "job", "dob"]
    assert len(two_days[["cc_num", *person]].drop_duplicates()) == two_days["cc_num"].nunique()


def test_cards_have_the_lengths_of_real_schemes() -> None:
    cards = Simulator(seed=3, cards=1_000).frame(20_000)["cc_num"].unique()
    assert 900 < len(cards) <= 1_000
    assert {len(str(card)) for card in cards} == {13, 14, 15, 16, 19}
    assert (cards > 2**53).sum() > 50


def test_same_seed_gives_same_payments() -> None:
    assert Simulator(seed=5).payments(3_000) == Simulator(seed=5).payments(3_000)
    assert Simulator(seed=5).payments(10) != Simulator(seed=6).payments(10)


def test_each_call_continues_after_the_last() -> None:
    parts = Simulator(seed=5, per_day=100)
    first_day = parts.frame(days=1)
    rest = parts.payments(50)
    whole = Simulator(seed=5, per_day=100).payments(len(first_day) + 50)
    assert [*first_day.itertuples(index=False, name=None), *rest] == whole


@pytest.mark.parametrize(("share", "rhythm"), [(0.0, True), (0.01, True), (0.01, False), (0.2, True), (1.0, True)])
def test_fraud_share_is_kept_over_days(share: float, rhythm: bool) -> None:
    frame = Simulator(seed=2, fraud_share=share, rhythm=rhythm).frame(days=4)
    assert frame["is_fraud"].mean() == pytest.approx(share, rel=0.15)
    assert len(frame) == pytest.approx(80_000, rel=0.03)


def test_fraud_share_without_rhythm_holds_from_the_first_minute() -> None:
    start = datetime.datetime(2026, 1, 1, 15, tzinfo=datetime.UTC)
    first_minute = Simulator(seed=2, fraud_share=0.05, start=start, per_day=500 * 86_400, rhythm=False).frame(30_000)
    assert first_minute["is_fraud"].mean() == pytest.approx(0.05, rel=0.15)


def test_most_frauds_and_few_genuine_payments_happen_at_night(two_days: pd.DataFrame) -> None:
    night = pd.to_datetime(two_days["trans_date_trans_time"]).dt.hour.isin([22, 23, 0, 1, 2, 3])
    fraud = two_days["is_fraud"] == 1
    assert night[~fraud].mean() < 0.2
    assert 0.55 < night[fraud].mean() < 0.85


def test_frauds_come_in_bursts_on_one_card(two_days: pd.DataFrame) -> None:
    def share_with_another_within_ten_minutes(payments: pd.DataFrame) -> float:
        times = payments.sort_values(["cc_num", "unix_time"]).groupby("cc_num")["unix_time"]
        near = (times.diff().abs() < 600_000) | (times.diff(-1).abs() < 600_000)
        return float(near.mean())

    fraud = two_days["is_fraud"] == 1
    assert share_with_another_within_ten_minutes(two_days[fraud]) > 0.85
    assert share_with_another_within_ten_minutes(two_days[~fraud]) < 0.5


def test_many_bursts_happen_far_from_home_in_one_region(two_days: pd.DataFrame) -> None:
    fraud = two_days["is_fraud"] == 1
    assert (distances(two_days[~fraud]) > 1.5).mean() < 0.05
    assert 0.4 < (distances(two_days[fraud]) > 1.5).mean() < 0.85
    frauds = two_days[fraud].sort_values(["cc_num", "unix_time"])
    followed = frauds.groupby("cc_num")["unix_time"].diff() < 480_001
    steps = np.hypot(frauds["merch_lat"].diff(), frauds["merch_long"].diff())[followed]
    assert (steps < 2).mean() > 0.95


def test_frauds_are_larger_but_overlap_with_genuine_payments(two_days: pd.DataFrame) -> None:
    online = two_days[two_days["category"] == "shopping_net"].groupby("is_fraud")["amt"]
    assert online.median()[1] > 10 * online.median()[0]
    assert online.quantile(0.05)[1] < online.max()[0]
    assert two_days[two_days["is_fraud"] == 1]["category"].value_counts().index[0] in ("shopping_net", "grocery_pos")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_model_of_first_day_is_useful_but_not_perfect_on_the_second(seed: int) -> None:
    frame = Simulator(seed=seed, fraud_share=0.01).frame(days=2)
    times = pd.to_datetime(frame["trans_date_trans_time"])
    features = pd.get_dummies(frame["category"], dtype=float).assign(
        amt=frame["amt"],
        hour=times.dt.hour,
        distance=distances(frame),
        age=(times - pd.to_datetime(frame["dob"])).dt.days / 365,
    )
    first_day = times < pd.Timestamp("2025-01-02")
    model = Pipeline(
        [
            ("scale", StandardScaler()),
            ("balance", SMOTE(random_state=0)),
            ("forest", RandomForestClassifier(60, random_state=0)),
        ]
    ).fit(features[first_day], frame["is_fraud"][first_day])
    probabilities = model.predict_proba(features[~first_day])[:, 1]
    assert 0.5 < average_precision_score(frame["is_fraud"][~first_day], probabilities) < 0.95


@pytest.mark.parametrize("invalid", [{"fraud_share": 1.5}, {"fraud_share": float("nan")}, {"cards": 0}, {"per_day": 0}])
def test_parameters_out_of_range_are_refused(invalid: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="give"):
        Simulator(**invalid)  # type: ignore[arg-type]
