"""The rule for times: models and the ledger read the same time from `current_time` and `unix_time`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from include.ledger.prediction_row import COLUMNS, PredictionReader, PredictionRow
from include.models.column import Column
from include.models.frame import FrameBuilder
from include.payments.timestamps import date_time_text, parse_unix_time, unix_time

SECOND = datetime(2024, 10, 31, 15, 56, 25, tzinfo=UTC)
HEADERS = [
    ("source", b"topic_1/0/0"),
    ("row", b"0"),
    ("model_run_id", b"run"),
    ("batch_id", b"batch"),
    ("scored_at", b"2026-03-04T16:00:00+00:00"),
]


def model_times(current_time: str) -> dict[str, Any]:
    """Return the two times that a model gets from `current_time`, empty if it is invalid."""
    payment = f'{{"current_time":{current_time},"is_fraud":null}}'.encode()
    columns = [Column("trans_date_trans_time"), Column("unix_time")]
    (group,) = FrameBuilder(columns, strict=False).build([payment]).groups
    return {name: group.frame[name].iloc[0] for name in group.frame}


def recorded_time(current_time: str) -> str:
    """Return the `paid_at` that the ledger records from `current_time`."""
    row = PredictionReader().row(0, 0, f'[{{"current_time":{current_time},"is_fraud":1}}]'.encode(), list(HEADERS))
    assert isinstance(row, PredictionRow)
    return dict(zip(COLUMNS, row.line.decode().rstrip("\n").split("\t"), strict=True))["paid_at"]


@pytest.mark.parametrize(
    ("current_time", "milliseconds"),
    [
        ("1730390185", 1730390185000),
        ("1730390185.811", 1730390185811),
        ("1730390185811", 1730390185811),
        ("1730390185811.7", 1730390185811),
        ("1730390185811250", 1730390185811),
        ("1730390185811250375", 1730390185811),
        ("1.730390185e9", 1730390185000),
        ('"1730390185"', 1730390185000),
        ('"1730390185811"', 1730390185811),
        ('" 1730390185.811 "', 1730390185811),
        ('"\\u0031730390185"', 1730390185000),
    ],
)
def test_model_and_ledger_read_the_same_time_from_current_time(current_time: str, milliseconds: int):
    assert model_times(current_time) == {"trans_date_trans_time": "2024-10-31 15:56:25", "unix_time": milliseconds}
    recorded = datetime.fromisoformat(recorded_time(current_time))
    assert recorded.replace(microsecond=0) == SECOND
    assert unix_time(recorded) == milliseconds


@pytest.mark.parametrize(
    "current_time",
    [
        *(
            "null",
            "true",
            '""',
            '"soon"',
            "[1730390185]",
            "{}",
            "1e300",
            "-1e300",
            "1e400",
            "1" + "0" * 30,
            pytest.param("9" * 5000, id="5,000 digits"),
        ),
        *('"nan"', '"inf"', '"1_730_390_185"', '"١٧٣٠٣٩٠١٨٥"', "-99999999999", "9223372036854775808"),
    ],
)
def test_invalid_time_is_null_for_model_and_ledger(current_time: str):
    try:
        times = model_times(current_time)
    except ValueError:
        # Of a payment with a number of 5,000 digits nothing can be read.
        times = {}
    assert times == {}
    assert recorded_time(current_time) == "\\N"


def test_magnitude_determines_the_unit_on_both_sides_of_each_limit():
    assert parse_unix_time(10**11 - 1) == parse_unix_time((10**11 - 1) * 1000)
    assert parse_unix_time(10**11) == datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)
    assert parse_unix_time(10**14) == parse_unix_time(10**17) == parse_unix_time(10**11)
    assert parse_unix_time(-1) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert parse_unix_time(2**63 - 1) == datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC)


def test_year_before_1000_has_four_digits():
    assert date_time_text(datetime(33, 4, 3, tzinfo=UTC)) == "0033-04-03 00:00:00"


def test_ledger_reads_unix_time_by_the_same_rule():
    payment = [{"unix_time": 1730390185811250, "is_fraud": 0}]
    row = PredictionReader().row(0, 0, json.dumps(payment).encode(), list(HEADERS))
    assert isinstance(row, PredictionRow)
    assert b"2024-10-31T15:56:25.811250+00:00" in row.line
