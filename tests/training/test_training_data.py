from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from include.errors import TrainingError
from include.models.payment_features import COLUMNS as MODEL_COLUMNS
from include.payments.columns import COLUMNS
from include.training.training_data import read_csv, split, validate

HEADER = ",".join(COLUMNS)
NUMERIC = ("amt",)


def one_a_minute(frauds: list[int]) -> pd.DataFrame:
    """Return one payment per minute, with these labels."""
    times = pd.date_range("2024-01-01", periods=len(frauds), freq="min").strftime("%Y-%m-%d %H:%M:%S")
    return pd.DataFrame({"trans_date_trans_time": times, "amt": 1.0, "is_fraud": frauds})


def test_read_csv_keeps_card_numbers_and_drops_the_index(tmp_path: Path, payments: pd.DataFrame) -> None:
    file = tmp_path / "fraudTrain.csv"
    payments.head(5).assign(cc_num="0123456789012345678").to_csv(file)  # with pandas' unnamed index column

    frame, source = read_csv(file)

    assert tuple(frame.columns) == COLUMNS
    assert frame["cc_num"].tolist() == ["0123456789012345678"] * 5
    assert source.name == "fraudTrain.csv"
    assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\x7fELF\xd0\xff\x00", "CSV file in UTF-8"),
        (b'a,b\n1,2,3,4\n"', "not a CSV file"),
    ],
)
def test_error_names_file_that_is_not_csv(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "payments.csv"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(TrainingError, match=message) as raised:
        read_csv(file)

    assert str(file) in str(raised.value)


def test_header_without_payments_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "payments.csv"
    file.write_text(HEADER + "\n")

    with pytest.raises(TrainingError, match="0 rows"):
        validate(read_csv(file)[0], MODEL_COLUMNS, NUMERIC)


def test_error_names_missing_columns(payments: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match="lack the column dob, is_fraud"):
        validate(payments.drop(columns=["dob", "is_fraud", "cc_num"]), MODEL_COLUMNS, NUMERIC)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("amt", "sixteen", "amt is not a number in 1 of 20 payments, first in row 4"),
        ("amt", float("inf"), "amt is not a number"),
        ("trans_date_trans_time", "yesterday", "trans_date_trans_time is not a date"),
        ("trans_date_trans_time", None, "trans_date_trans_time is empty in 1 of 20 payments"),
        ("dob", "17/11/1964", "dob is not a date"),
        ("is_fraud", 2, "is_fraud is neither 0 nor 1"),
        ("is_fraud", None, "is_fraud is neither 0 nor 1"),
    ],
)
def test_error_gives_row_of_invalid_value_but_not_the_value(
    payments: pd.DataFrame, column: str, value: Any, message: str
) -> None:
    frame = payments.head(20).astype(object)
    frame.loc[frame.index[3], column] = value

    with pytest.raises(TrainingError, match=message) as raised:
        validate(frame, MODEL_COLUMNS, NUMERIC)

    assert not isinstance(value, str) or value not in str(raised.value)


def test_numbers_given_as_text_are_accepted(payments: pd.DataFrame) -> None:
    frame = payments.head(20).astype({"amt": "str", "is_fraud": "str"})

    checked = validate(frame, MODEL_COLUMNS, NUMERIC)

    assert checked["amt"].tolist() == payments["amt"].head(20).tolist()
    assert checked["is_fraud"].tolist() == payments["is_fraud"].head(20).tolist()


def test_split_holds_out_the_latest_fifth() -> None:
    ordered = one_a_minute([0, 1] * 50)

    parts = split(ordered.sample(frac=1, random_state=1))

    assert len(parts.train) == 80
    assert len(parts.held_out) == 20
    assert parts.train["trans_date_trans_time"].max() < parts.held_out["trans_date_trans_time"].min()
    assert parts.train.index.tolist() == list(range(80))


def test_split_keeps_payments_of_one_second_together() -> None:
    frame = one_a_minute([0, 1] * 50)
    frame.loc[70:90, "trans_date_trans_time"] = frame.loc[70, "trans_date_trans_time"]

    parts = split(frame)

    assert len(parts.train) == 70
    assert len(parts.held_out) == 30


@pytest.mark.parametrize(
    ("frauds", "message"),
    [
        ([0] * 100, "80 are in the training part, 0 frauds and 80 genuine ones; at least 6 of each"),
        ([1] * 100, "80 frauds and 0 genuine"),
        ([1] * 5 + [0] * 85 + [1] * 10, "5 frauds and 75 genuine"),
        ([1] * 6 + [0] * 94, "20 are in the held-out part, 0 frauds and 20 genuine ones; at least 1 of each"),
        ([1], "of 1, 0 are in the training part"),
    ],
)
def test_error_counts_payments_of_each_class(frauds: list[int], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        split(one_a_minute(frauds))


def test_six_training_frauds_suffice() -> None:
    parts = split(one_a_minute([1] * 6 + [0] * 90 + [1] * 4))

    assert parts.to_params() == {
        "train_payments": 80,
        "train_frauds": 6,
        "train_from": "2024-01-01 00:00:00",
        "train_to": "2024-01-01 01:19:00",
        "held_out_payments": 20,
        "held_out_frauds": 4,
        "held_out_from": "2024-01-01 01:20:00",
        "held_out_to": "2024-01-01 01:39:00",
    }
