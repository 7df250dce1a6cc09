"""Decoding of messages to records, and that the ledger and `fraud verify` read the same from the output."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.ledger.prediction_row import PredictionReader, PredictionRow
from include.payments.columns import COLUMNS
from include.payments.decode import Decoder, Record, RefusedRow
from include.payments.encode import scored_object, scored_value, unscored_object
from include.verify.expected_message import expected_payments, parse_scored_message

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
    """Return the published objects, with numbers as Decimal so that no digit is lost."""
    records = [result for result in Decoder().decode(value) if isinstance(result, Record)]
    values = [scored_value(record.head, record.tail, prediction) for record in records]
    return [json.loads(value, parse_int=Decimal, parse_float=Decimal)[0] for value in values]


def codes(value: bytes | None) -> list[tuple[int | None, str]]:
    return [(result.row, result.refusal.code) for result in Decoder().decode(value) if isinstance(result, RefusedRow)]


def test_payment_is_published_in_records_form_with_prediction_and_confirmation():
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
def test_columns_keep_their_order(columns: list[str], expected: list[str]):
    (record,) = published(split(columns, [7] * len(columns)))
    assert list(record) == expected
    assert record["is_fraud"] == 1


def test_model_never_sees_the_label():
    (record,) = Decoder().decode(split(["amt", "is_fraud"], [1, 1]))
    assert isinstance(record, Record)
    assert json.loads(unscored_object(record.head, record.tail))["is_fraud"] is None
    assert json.loads(scored_object(record.head, record.tail, 0))["is_fraud"] == 0


def test_each_row_of_a_message_is_a_payment():
    results = Decoder().decode(split(["a"], [1], [2], [3]))
    assert [result.row for result in results] == [0, 1, 2]
    assert [record["a"] for record in published(split(["a"], [1], [2], [3]))] == [1, 2, 3]


def test_invalid_row_does_not_affect_other_rows():
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
def test_invalid_message_is_refused_as_a_whole(value: bytes | None, code: str):
    assert codes(value) == [(None, code)]


@pytest.mark.parametrize("around", [b"", b",7"])
def test_only_the_row_nested_too_deep_is_refused(around: bytes):
    def message(levels: int) -> bytes:
        deep = b"[" * levels + b"]" * levels
        return b'{"columns":["a","b"],"data":[[%s,"[[[["],[1,2]%s]}' % (deep, around)

    expected = [(2, "row_not_list")] if around else []
    assert codes(message(150)) == expected
    assert codes(message(300)) == [(0, "nested_too_deep"), *expected]
    # Brackets inside texts, and lists beside one another, do not add depth.
    assert codes(split(["a", "b"], ["[" * 500 + '\\"', [[]] * 500])) == []


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def in_text(value: bytes) -> bytes:
    return json.dumps(value.decode()).encode()


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda value: BYTE_ORDER_MARK + value, id="byte order mark"),
        pytest.param(
            lambda value: BYTE_ORDER_MARK + BYTE_ORDER_MARK + b" \r\n" + value, id="two byte order marks and blanks"
        ),
        pytest.param(in_text, id="JSON string"),
        pytest.param(lambda value: b" \n" + in_text(value) + b" ", id="JSON string between blanks"),
        pytest.param(lambda value: in_text(in_text(in_text(value))), id="JSON string in JSON strings"),
        pytest.param(lambda value: BYTE_ORDER_MARK + in_text(BYTE_ORDER_MARK + value), id="both"),
    ],
)
def test_payments_behind_byte_order_mark_or_in_json_string_are_read(wrap: Callable[[bytes], bytes]):
    columns = ["cc_num", "name", "is_fraud"]
    value = split(columns, [4613314721966198765, 'Ann "ü"', 0], [1.50, "[", 1], "no row")
    # json.dumps writes 1.5; numbers keep the bytes 1.50.
    value = value.replace(b"1.5,", b"1.50,")
    assert Decoder().decode(wrap(value)) == Decoder().decode(value)
    (_, second, refused) = Decoder().decode(wrap(value))
    assert isinstance(second, Record)
    assert second.head == b'{"cc_num":1.50,"name":"[","is_fraud":'
    assert isinstance(refused, RefusedRow)
    assert_agrees_with_verify(wrap(value), [0, 1], rows=3)


def test_flat_data_of_one_row_is_one_row():
    row = [4613314721966198765, "Ann", None, {"os": "a"}, 0]
    columns = ["cc_num", "name", "job", "device", "is_fraud"]
    flat = json.dumps({"columns": columns, "index": [1], "data": row}).encode()
    assert Decoder().decode(flat) == Decoder().decode(split(columns, row))
    assert_agrees_with_verify(flat, [0], rows=1)
    decoder = Decoder()
    decoder.decode(flat)
    assert decoder.columns_seen == set(columns)
    assert_agrees_with_verify(BYTE_ORDER_MARK + in_text(flat), [0], rows=1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, 2, 3], [(0, "row_length")]),
        ([1], [(0, "row_length")]),
        # If one value is a list, each value has to be a row.
        ([[1, 2], 3], [(1, "row_not_list")]),
        # Objects only: they are records, not the values of one row.
        ([{"a": 1, "b": 2}, {"a": 3, "b": 4}], [(0, "row_not_list"), (1, "row_not_list")]),
    ],
)
def test_data_that_is_neither_rows_nor_one_row_is_refused(data: list[Any], expected: list[tuple[int, str]]):
    value = json.dumps({"columns": ["a", "b"], "data": data}).encode()
    assert codes(value) == expected
    scored = [row for row in range(len(data)) if isinstance(data[row], list)]
    assert_agrees_with_verify(value, scored, rows=len(scored) + len(expected))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (BYTE_ORDER_MARK, "not_json"),
        (BYTE_ORDER_MARK + b"hello", "not_json"),
        (b" " + BYTE_ORDER_MARK + b'{"columns":["a"],"data":[[1]]}', "not_json"),
        (BYTE_ORDER_MARK + b"[]", "not_split"),
        (b'""', "not_split"),
        (b'"hello"', "not_split"),
        (b'"[1]"', "not_split"),
        (b'"{\\"columns\\":[\\"a\\"],\\"data\\":[]}"', "no_rows"),
        (b'"{\\"columns\\":"', "not_json"),
        (b'"{\\"columns\\":[\\"a\\"],\\"data\\":[[\\"\\\\ud800\\"]]}"', "not_json"),
    ],
)
def test_wrapped_message_without_payment_is_refused_as_a_whole(value: bytes, code: str):
    assert codes(value) == [(None, code)]


def assert_agrees_with_verify(value: bytes, scored: list[int], rows: int) -> None:
    """Assert that `fraud verify` and the ledger read from the output what verify reads from the message."""
    expected = expected_payments(value)
    assert len(expected) == rows
    assert [row for row, pairs in enumerate(expected) if pairs is not None] == scored
    for record in Decoder().decode(value):
        if isinstance(record, Record):
            out = scored_value(record.head, record.tail, 1)
            assert parse_scored_message(out) == expected[record.row]
            headers: list[tuple[str, bytes | None]] = [("source", b"topic_1/0/0"), ("row", b"%d" % record.row)]
            headers += [(name, b"x") for name in ("model_run_id", "batch_id")]
            headers.append(("scored_at", b"2026-03-04T16:00:00+00:00"))
            assert isinstance(PredictionReader().row(0, 0, out, headers), PredictionRow)


def test_reason_never_quotes_the_payment():
    for value in (b"4613314721966198765", split(["cc_num"], ["4613314721966198765", 1]), b'["4613314721966198765"]'):
        for result in Decoder().decode(value):
            assert isinstance(result, RefusedRow)
            assert "4613" not in str(result.refusal)


def test_columns_seen_accumulate_over_messages():
    decoder = Decoder()
    decoder.decode(split(["a"], [1]))
    decoder.decode(split(["b"], [1]))
    assert decoder.columns_seen == {"a", "b"}
    assert decoder.all_columns_known


def test_columns_of_refused_rows_are_not_seen():
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
def test_columns_seen_are_limited_and_smaller_layouts_still_fit(loosely: bool):
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


def test_many_and_long_names_do_not_fill_memory():
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
def test_any_payment_is_published_unchanged(payment: tuple[list[str], list[list[Any]]], prediction: int):
    names, rows = payment
    value = json.dumps({"columns": names, "data": rows}).encode()
    results = Decoder().decode(value)
    assert len(results) == len(rows)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, RefusedRow):
            # Of what json.dumps writes, UTF-8 readers only refuse half of a surrogate pair.
            assert "\\ud" in value.decode()
            continue
        (out,) = json.loads(scored_value(result.head, result.tail, prediction))
        expected = dict(zip(names, row, strict=True)) | {"is_fraud": prediction, "fraud_confirmed": None}
        assert out == expected


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_halves_agree_with_decode(value: bytes):
    assert_halves_agree(value)


@pytest.mark.parametrize(
    "names", [["a", "b", "is_fraud"], ["is_fraud", "a"], ["a", "is_fraud", "b"], ["a"], ["is_fraud"], []]
)
@pytest.mark.parametrize("spaces", [(", ", ": "), (",", ":")])
def test_halves_agree_with_decode_for_each_order_of_columns(names: list[str], spaces: tuple[str, str]):
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
            assert_halves_agree(json.dumps(value, separators=spaces, ensure_ascii=False).encode())


def assert_halves_agree(value: bytes) -> None:
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


def test_halves_need_a_known_order_of_columns():
    decoder, value = Decoder(), split(["a"], [1])
    assert decoder.halves(value) is None
    decoder.decode(value)
    assert decoder.halves(value) == (b'{"a":1,"is_fraud":', b',"fraud_confirmed":null}')
    assert decoder.halves(None) is None
    assert decoder.halves(b"") is None


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_message_has_a_result(value: bytes):
    assert Decoder().decode(value)


@given(
    st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=3),
    st.lists(json_values, max_size=4) | st.lists(st.lists(json_values, max_size=3), max_size=3),
    st.lists(st.booleans(), max_size=3),
)
def test_records_are_what_verify_expects(names: list[str], data: list[Any], wraps: list[bool]):
    text = json.dumps({"columns": names, "data": data})
    for in_string in wraps:
        text = json.dumps(text) if in_string else "\ufeff" + text
    expected = expected_payments(text.encode())
    results = Decoder().decode(text.encode())
    if results[0].row is not None:
        assert len(results) == len(expected)
    for result in results:
        if isinstance(result, Record):
            assert parse_scored_message(scored_value(result.head, result.tail, 0)) == expected[result.row]
        elif result.row is not None and result.refusal.code != "nested_too_deep":
            assert expected[result.row] is None
