from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.payments.columns import COLUMNS
from include.payments.decode import Decoder, Record, RefusedRow
from include.payments.encode import scored_object, scored_value, unscored_object

PAYMENT = [
    "2024-10-31 15:56:25",
    377895991033232,
    "fraud_McDermott, Osinski and Morar",
    "home",
    16.18,
    "Kimberly",
    "Myers",
    "F",
    "6881 King Isle Suite 228",
    "Higganum",
    "CT",
    6441,
    41.4682,
    -72.5751,
    5438,
    "Librarian, academic",
    "1964-11-17",
    "64b632ebfbc52a1075747f9301db22b8",
    1730390185811,
    41.581898,
    -73.130293,
    0,
]


def split(columns: list[Any], *rows: Any) -> bytes:
    return json.dumps({"columns": columns, "index": [1], "data": list(rows)}).encode()


def published(value: bytes, prediction: int = 1) -> list[dict[str, Any]]:
    """The output's objects; numbers as Decimal, so that no digit is lost in comparing."""
    records = [result for result in Decoder().decode(value) if isinstance(result, Record)]
    values = [scored_value(record.head, record.tail, prediction) for record in records]
    return [json.loads(value, parse_int=Decimal, parse_float=Decimal)[0] for value in values]


def codes(value: bytes | None) -> list[tuple[int | None, str]]:
    return [(r.row, r.refusal.code) for r in Decoder().decode(value) if isinstance(r, RefusedRow)]


def test_payment_comes_out_in_records_form_with_prediction_and_confirmation():
    (record,) = published(split(list(COLUMNS), PAYMENT))
    assert list(record) == [*COLUMNS, "fraud_confirmed"]
    assert record["is_fraud"] == 1
    assert record["fraud_confirmed"] is None
    assert record["cc_num"] == 377895991033232
    assert record["merchant"] == "fraud_McDermott, Osinski and Morar"


@pytest.mark.parametrize(
    "text",
    ["4613314721966198765", '"4613314721966198765"', "16.180", "1e2", "-0.0", "1e400", '"\\u00e9"', "[1, {}]", "true"],
)
def test_value_keeps_its_exact_bytes(text: str):
    value = b'{"columns":["x","is_fraud","y"],"index":[0],"data":[[' + text.encode() + b",0," + text.encode() + b"]]}"
    (record,) = Decoder().decode(value)
    assert isinstance(record, Record)
    x = text.encode()
    assert scored_value(record.head, record.tail, 0) == b'[{"x":%s,"is_fraud":0,"y":%s,"fraud_confirmed":null}]' % (
        x,
        x,
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["is_fraud", "a"], ["is_fraud", "a", "fraud_confirmed"]),
        (["a", "is_fraud", "b"], ["a", "is_fraud", "b", "fraud_confirmed"]),
        (["a"], ["a", "is_fraud", "fraud_confirmed"]),
        (["fraud_confirmed", "a"], ["a", "is_fraud", "fraud_confirmed"]),
        (["is_fraud"], ["is_fraud", "fraud_confirmed"]),
        ([], ["is_fraud", "fraud_confirmed"]),
        (['quo"te', "ünï"], ['quo"te', "ünï", "is_fraud", "fraud_confirmed"]),
    ],
)
def test_columns_keep_the_order_they_came_in(columns: list[str], expected: list[str]):
    (record,) = published(split(columns, [7] * len(columns)))
    assert list(record) == expected
    assert record["is_fraud"] == 1


def test_model_never_sees_the_label():
    (record,) = Decoder().decode(split(["amt", "is_fraud"], [1, 1]))
    assert isinstance(record, Record)
    assert json.loads(unscored_object(record.head, record.tail))["is_fraud"] is None
    assert json.loads(scored_object(record.head, record.tail, 0))["is_fraud"] == 0


def test_message_with_several_rows_is_several_payments():
    results = Decoder().decode(split(["a"], [1], [2], [3]))
    assert [result.row for result in results] == [0, 1, 2]
    assert [record["a"] for record in published(split(["a"], [1], [2], [3]))] == [1, 2, 3]


def test_bad_row_leaves_the_others_of_its_message():
    value = split(["a", "b"], [1, 2], [3], "four", [5, 6], [7, 8, 9])
    assert [record["a"] for record in published(value)] == [1, 5]
    assert codes(value) == [(1, "row_length"), (2, "row_not_list"), (4, "row_length")]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty_value"),
        (b"", "empty_value"),
        (b"hello", "not_json"),
        (b'{"columns":["a"],"data":[[1]]} {}', "not_json"),
        (b'{"columns":["a"],"data":[[NaN]]}', "not_json"),
        (b'{"columns":["a"],"data":[["\xff"]]}', "not_utf8"),
        (b"\x00\x00\x00\x00\x07avro", "not_json"),
        (b"[]", "not_split"),
        (b'"text"', "not_split"),
        (b'{"amt": 1}', "not_split"),
        (b'{"columns":["a"],"data":{"x":1}}', "not_split"),
        (b'{"columns":[1],"data":[[1]]}', "not_split"),
        (b'{"columns":["a"],"data":[]}', "no_rows"),
        (b'{"columns":["a","a"],"data":[[1,2]]}', "duplicate_column"),
        (b"[" * 100_000, "not_split"),
        (b'{"columns":["a"],"data":[[%s]]}' % (b"[" * 100_000 + b"]" * 100_000), "not_json"),
        (b'{"columns":["a"],"data":[["half \\ud83d"]]}', "not_json"),
        (b'{"columns":["a"],"data":[' + b"[1]," * 10_000 + b"[1]]}", "too_many_rows"),
        (b'{"columns":["a"],"data":[' + b"{}," * 10_000 + b"{}]}", "too_many_rows"),
        (b'{"columns":["%s"],"data":[%s[1]]}' % (b"a" * 500_000, b"[1]," * 500), "too_many_rows"),
    ],
)
def test_foreign_message_is_refused_as_a_whole(value: bytes | None, code: str):
    assert codes(value) == [(None, code)]


@pytest.mark.parametrize("around", [b"", b",7"])
def test_value_nested_deeper_than_readers_follow_is_refused_alone(around: bytes):
    def message(levels: int) -> bytes:
        deep = b"[" * levels + b"]" * levels
        return b'{"columns":["a","b"],"data":[[%s,"[[[["],[1,2]%s]}' % (deep, around)

    expected = [(2, "row_not_list")] if around else []
    assert codes(message(150)) == expected
    assert codes(message(300)) == [(0, "nested_too_deep"), *expected]
    # Brackets inside of texts, and beside one another, are no depth.
    assert codes(split(["a", "b"], ["[" * 500 + '\\"', [[]] * 500])) == []


def test_reason_never_quotes_the_payment():
    for value in (b"4613314721966198765", split(["cc_num"], ["4613314721966198765", 1]), b'["4613314721966198765"]'):
        for result in Decoder().decode(value):
            assert isinstance(result, RefusedRow)
            assert "4613" not in str(result.refusal)


def test_columns_seen_are_remembered_over_messages():
    decoder = Decoder()
    decoder.decode(split(["a"], [1]))
    decoder.decode(split(["b"], [1]))
    assert decoder.columns_seen == {"a", "b"}
    assert decoder.all_columns_known


def test_columns_of_what_is_refused_are_not_remembered():
    decoder = Decoder()
    decoder.decode(split(["x"]))
    decoder.decode(split(["x", "y"], [1]))
    decoder.decode(split(["x", "y"], "row", [1, 2, 3]))
    decoder.decode(split(["x", "y"], ["[", json.loads("[" * 300 + "]" * 300)]))
    assert decoder.columns_seen == set()
    decoder.decode(split(["x", "y"], [1], [1, 2]))
    assert decoder.columns_seen == {"x", "y"}
    assert decoder.all_columns_known


@pytest.mark.parametrize("loosely", [False, True])
def test_foreign_names_leave_room_for_those_of_payments(loosely: bool):
    decoder = Decoder()
    names = [f"{number}" for number in range(985)]
    decoder.decode(split(names, names))
    columns = [*COLUMNS[:10], "device_id"]
    decoder.decode(split(columns, columns, *(["no row"] if loosely else [])))
    assert decoder.columns_seen == {*names, *columns}
    assert decoder.all_columns_known
    decoder.decode(split(["one", "two", "three", "four", "five"], [1] * 5))
    assert len(decoder.columns_seen) == 996
    assert not decoder.all_columns_known
    decoder.decode(split(["fits"], [1]))
    assert "fits" in decoder.columns_seen
    assert not decoder.all_columns_known


def test_names_that_nobody_uses_fill_no_memory():
    decoder = Decoder()
    for number in range(2_000):
        decoder.decode(split([f"{number}", "x" * 200], [1, 2]))
    assert len(decoder.columns_seen) <= 1_000
    assert max(map(len, decoder.columns_seen)) <= 100
    assert not decoder.all_columns_known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.text(), unique=True, max_size=8).flatmap(
        lambda names: st.tuples(
            st.just(names),
            st.lists(st.lists(json_values, min_size=len(names), max_size=len(names)), min_size=1, max_size=3),
        )
    ),
    st.sampled_from([0, 1]),
)
def test_any_payment_comes_out_as_it_came(payment: tuple[list[str], list[list[Any]]], prediction: int):
    names, rows = payment
    value = json.dumps({"columns": names, "data": rows}).encode()
    results = Decoder().decode(value)
    assert len(results) == len(rows)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, RefusedRow):
            # Half of a surrogate pair is all that json.dumps writes and no UTF-8 reader takes.
            assert "\\ud" in value.decode()
            continue
        (out,) = json.loads(scored_value(result.head, result.tail, prediction))
        expected = dict(zip(names, row, strict=True)) | {"is_fraud": prediction, "fraud_confirmed": None}
        assert out == expected


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_short_way_says_nothing_else(value: bytes):
    assert_short_way_agrees(value)


@pytest.mark.parametrize(
    "names", [["a", "b", "is_fraud"], ["is_fraud", "a"], ["a", "is_fraud", "b"], ["a"], ["is_fraud"], []]
)
@pytest.mark.parametrize("spaces", [(", ", ": "), (",", ":")])
def test_short_way_is_the_same_for_each_order(names: list[str], spaces: tuple[str, str]):
    for row in (
        [1.50, "ü", None],
        [[], {"[": "{"}, "\\u0041"],
        ["[" * 300, 1, 2],
        [json.loads("[" * 300 + "]" * 300), 1, 2],
    ):
        whole = {"columns": names, "index": [0], "data": [row[: len(names)]]}
        for value in (
            whole,
            whole | {"data": [row[: len(names)]] * 2},
            whole | {"data": [row]},
            whole | {"columns": "a"},
        ):
            assert_short_way_agrees(json.dumps(value, separators=spaces, ensure_ascii=False).encode())


def assert_short_way_agrees(value: bytes) -> None:
    decoder = Decoder()
    decoder.decode(value)
    seen = set(decoder.columns_seen)
    halves = decoder.halves(value)
    if halves is not None:
        assert decoder.decode(value) == [Record(0, *halves)]
        assert decoder.columns_seen == seen
    else:
        results = decoder.decode(value)
        assert len(results) > 1 or isinstance(results[0], RefusedRow) or len(value) > 200


def test_short_way_needs_an_order_that_is_known():
    decoder, value = Decoder(), split(["a"], [1])
    assert decoder.halves(value) is None
    decoder.decode(value)
    assert decoder.halves(value) == (b'{"a":1,"is_fraud":', b',"fraud_confirmed":null}')
    assert decoder.halves(None) is None
    assert decoder.halves(b"") is None


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_message_is_accounted_for(value: bytes):
    assert Decoder().decode(value)
