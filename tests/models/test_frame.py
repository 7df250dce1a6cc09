from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.models.column import Column, payment_column
from include.models.frame import FrameBuilder, Frames
from tests.models.zoo import payment


def build(input_columns: list[Column | str], payments: list[Any], *, strict: bool = False) -> Frames:
    columns = [column if isinstance(column, Column) else payment_column(column) for column in input_columns]
    texts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in payments]
    return FrameBuilder(columns, strict=strict).build(texts)


def single_frame(frames: Frames) -> pd.DataFrame:
    assert frames.refusals == {}
    assert len(frames.groups) == 1
    return frames.groups[0].frame


def test_columns_have_the_models_order_and_the_types_of_pandas() -> None:
    payments = [payment(amt=1.5), payment(amt=2), payment(amt=3.25)]
    frame = single_frame(build(["zip", "amt", "category"], payments))
    pd.testing.assert_frame_equal(frame, pd.DataFrame(payments)[["zip", "amt", "category"]])


@pytest.mark.parametrize("name", ["a b", "class", 'quo"te', "ünï", "", "__init__", "1"])
def test_any_field_name_can_be_a_column(name: str) -> None:
    assert single_frame(build([name], [{name: 1, "x": 2}, {name: 2}]))[name].tolist() == [1, 2]


def test_payments_of_same_types_share_a_frame_largest_first() -> None:
    payments = [payment(), payment(amt="16.18"), payment(), payment(amt=None), payment(amt=1e300), payment(amt=...)]
    payments += [payment(amt=True), payment(amt=[1]), payment()]
    groups = build(["amt", "lat"], payments).groups
    assert [group.rows.tolist() for group in groups] == [[0, 2, 8], [1], [3], [6], [4], [7], [5]]
    assert groups[0].frame.dtypes.tolist() == [np.float64, np.float64]
    assert groups[-1].missing == ["amt"]
    assert list(groups[-1].frame.columns) == ["lat"]
    for group in groups[1:-1]:
        frame = pd.DataFrame([payments[group.rows[0]]])[["amt", "lat"]]
        # In a CSV file an empty field leaves the column's type unchanged.
        expected = frame.astype({"amt": "float64"}) if frame["amt"].isna().any() else frame
        pd.testing.assert_frame_equal(group.frame, expected)


@pytest.mark.parametrize(
    ("column", "values", "dtypes"),
    [
        (Column("zip", "int64"), [6441, 6.5, 6441.0, "6441", None], ["int64", "float64", "int64", "int64", "float64"]),
        (Column("zip", "text"), [6441, "06441", None], ["str", "str", "str"]),
        (payment_column("zip"), [6441, 6.5, 6441.0, "0644", None], ["int64", "float64", "int64", "str", "float64"]),
        (payment_column("amt"), [16, 16.18, None], ["float64"] * 3),
        (payment_column("category"), ["home", None, 5], ["str", "str", "int64"]),
        (payment_column("more"), [1, 1.5, "a", None], ["int64", "float64", "str", "object"]),
        (Column("share", "float32"), [1, 1.5, None], ["float32"] * 3),
        (Column("flag", "boolean"), [True, "false", 1, None], ["bool", "bool", "bool", "object"]),
        (Column("at", "datetime"), ["2024-10-31 15:56:25", None], ["datetime64[us]"] * 2),
    ],
)  # fmt: skip
def test_type_of_a_value_does_not_depend_on_other_payments(
    column: Column, values: list[Any], dtypes: list[str]
) -> None:
    name = column.name
    groups = build([column], [{name: value} for value in values]).groups
    column_of_row = {int(row): group.frame[name] for group in groups for row in group.rows}
    value_of_row = {int(row): one for group in groups for row, one in zip(group.rows, group.frame[name], strict=True)}
    assert [str(column_of_row[row].dtype) for row in range(len(values))] == dtypes
    for row, value in enumerate(values):
        (alone,) = build([column], [{name: value}]).groups
        assert str(alone.frame[name].dtype) == dtypes[row]
        assert value_of_row[row] == alone.frame[name].iloc[0] or (value is None and pd.isna(value_of_row[row]))


@pytest.mark.parametrize("card", [4311964829736450187, 9999999999999999999, 2**63 - 1, 2**80, 10**400])
def test_whole_numbers_of_any_size_stay_exact(card: int) -> None:
    groups = build(["cc_num"], [payment(cc_num=card), payment(cc_num=1)]).groups
    assert {int(group.frame["cc_num"].iloc[0]) for group in groups if group.rows[0] == 0} == {card}


@pytest.mark.parametrize("text", [b'{"amt": 1e400}', b'{"amt": ' + b"9" * 4000 + b"}", b'{"amt": "\\ud800"}'])
def test_payment_that_msgspec_rejects_gets_a_frame_of_its_own(text: bytes) -> None:
    frames = build(["amt"], [payment(), text, payment()])
    assert frames.groups[0].rows.tolist() == [0, 2]
    assert [group.rows.tolist() for group in frames.groups[1:]] == [[1]]


@pytest.mark.parametrize(
    "text", [b"[1]", b"", b"{}{}", b'{"amt": ' + b"9" * 5000 + b"}", b"\xff", b'{"amt": 1}, {"amt": 2}']
)
def test_unreadable_payment_is_refused(text: bytes) -> None:
    frames = build(["amt"], [payment(), text])
    assert {row: refusal.code for row, refusal in frames.refusals.items()} == {1: "bad_value"}
    assert frames.groups[0].rows.tolist() == [0]


def test_no_payments_give_no_frame() -> None:
    assert build(["amt"], []) == Frames([], {})


def test_missing_time_columns_are_derived_from_current_time() -> None:
    old = payment(trans_date_trans_time=..., unix_time=..., current_time=1730390185811)
    frame = single_frame(build(["unix_time", "trans_date_trans_time"], [old, payment(current_time=5)]))
    assert frame["unix_time"].tolist() == [1730390185811, 1730390185811]
    assert frame["trans_date_trans_time"].tolist() == ["2024-10-31 15:56:25", "2024-10-31 15:56:25"]


@pytest.mark.parametrize("time", ["soon", None, 1e300, [1]])
def test_invalid_current_time_leaves_time_columns_missing(time: object) -> None:
    old = payment(trans_date_trans_time=..., current_time=time)
    assert build(["trans_date_trans_time"], [old]).groups[0].missing == ["trans_date_trans_time"]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int64", [1, "377895991033232", 3.0, "4.0"], np.array([1, 377895991033232, 3, 4])),
        ("int32", [1, "2"], np.array([1, 2], dtype=np.int32)),
        ("float64", [1, "16.18", 2.5], np.array([1.0, 16.18, 2.5])),
        ("float32", [1, "16.5"], np.array([1.0, 16.5], dtype=np.float32)),
        ("boolean", [True, 0, "True", "0"], np.array([True, False, True, False])),
        ("datetime", ["2024-10-31 15:56:25", "2024-10-31T16:56:25+01:00"],
         np.array(["2024-10-31T15:56:25"] * 2, "M8[us]")),
    ],
)  # fmt: skip
def test_values_are_converted_to_the_signatures_type(kind: str, values: list[Any], expected: Any) -> None:
    series = single_frame(build([Column("x", kind)], [{"x": value} for value in values], strict=True))["x"]
    assert series.tolist() == pd.Series(expected).tolist()
    assert series.dtype.kind == expected.dtype.kind
    assert series.dtype.itemsize == expected.dtype.itemsize


def test_values_of_text_column_are_converted_to_text() -> None:
    frame = single_frame(build([Column("x", "text")], [{"x": value} for value in ("a", 6441, 1.5, True)], strict=True))
    assert frame["x"].tolist() == ["a", "6441", "1.5", "true"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int64", [1.5, "many", True, [1], 2**63, "1e400"]),
        ("int32", [2**31]),
        ("float64", ["many", True, {}, 10**400]),
        ("boolean", [2, "yes", []]),
        ("datetime", ["yesterday", 5]),
        ("text", [[1], {}]),
    ],
)
def test_refusal_of_inconvertible_value_does_not_quote_it(kind: str, values: list[Any]) -> None:
    frames = build([Column("x", kind)], [{"x": value} for value in values], strict=True)
    assert frames.groups == []
    assert set(frames.refusals) == set(range(len(values)))
    assert {str(refusal) for refusal in frames.refusals.values()} == {
        f"bad_value: x: {Column('x', kind).kind_text} expected"
    }


@pytest.mark.parametrize("kind", ["float64", "int64", "text", "boolean", "datetime", "any"])
def test_null_becomes_nan_in_every_kind_of_column(kind: str) -> None:
    frame = single_frame(build([Column("x", kind)], [{"x": None}], strict=True))
    assert frame["x"].isna().all()
    assert frame["x"].tolist() != [None]
