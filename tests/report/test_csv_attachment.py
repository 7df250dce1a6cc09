"""The CSV attachment of a fraud report."""

from __future__ import annotations

import csv
import io
import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.report import csv_attachment
from include.report.fraud import Fraud

FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b"
UNLIMITED = 10**9


def fraud(record: dict[str, Any] | str, probability: float | None = 0.9, offset: int = 7) -> Fraud:
    text = record if isinstance(record, str) else json.dumps(record)
    return Fraud(f"topic_1/0/{offset}", 0, probability, text.encode())


def rows(data: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def written_cell(value: Any, **options: Any) -> str:
    data, count = csv_attachment.write([fraud({"x": value})], mask=True, max_bytes=UNLIMITED, **options)
    assert count == 1
    return rows(data)[1][3]


def test_rows_have_source_and_columns_in_their_order() -> None:
    record = '{"amt": 16.18, "cc_num": "4556123412349012", "is_fraud": 1, "fraud_confirmed": null}'
    data, _ = csv_attachment.write([fraud(record, 0.875)], mask=True, max_bytes=UNLIMITED)
    assert rows(data) == [
        ["source", "row", "fraud_probability", "amt", "cc_num", "is_fraud", "fraud_confirmed"],
        ["topic_1/0/7", "0", "0.875", "16.18", "455612******9012", "1", ""],
    ]


def test_file_begins_with_a_byte_order_mark_for_excel() -> None:
    data, _ = csv_attachment.write([fraud({"city": "Zürich"})], mask=True, max_bytes=UNLIMITED)
    assert data.startswith(b"\xef\xbb\xbf")
    assert "Zürich".encode() in data


def test_numbers_keep_every_digit() -> None:
    record = '{"cc_num": 4556123412349012345, "a": 1.10, "b": 4.2e18, "c": -72.5751, "d": -0.0, "e": 1730390185811}'
    data, _ = csv_attachment.write([fraud(record)], mask=False, max_bytes=UNLIMITED)
    assert rows(data)[1][3:] == ["4556123412349012345", "1.10", "4.2e18", "-72.5751", "-0.0", "1730390185811"]


@pytest.mark.parametrize("card", [4556123412349012345, "4556123412349012345", "4556-1234-1234-9012345"])
def test_card_numbers_are_masked_with_mask_only(card: int | str) -> None:
    masked, _ = csv_attachment.write([fraud({"cc_num": card})], mask=True, max_bytes=UNLIMITED)
    shown, _ = csv_attachment.write([fraud({"cc_num": card})], mask=False, max_bytes=UNLIMITED)
    assert rows(masked)[1][3] == "455612*********2345"
    assert rows(shown)[1][3] == str(card)


@pytest.mark.parametrize("card", [4.2e18, {"number": "4556123412349012"}, ["4556123412349012"], True])
def test_card_number_of_an_unexpected_type_is_hidden(card: object) -> None:
    data, _ = csv_attachment.write([fraud({"cc_num": card})], mask=True, max_bytes=UNLIMITED)
    assert rows(data)[1][3] == "****"


def test_payments_with_different_columns_share_one_table() -> None:
    data, _ = csv_attachment.write([fraud({"a": 1, "b": 2}), fraud({"c": 3, "a": 4})], mask=True, max_bytes=UNLIMITED)
    assert [row[3:] for row in rows(data)] == [["a", "b", "c"], ["1", "2", ""], ["4", "", "3"]]


@pytest.mark.parametrize(
    "value",
    [
        "=1+1",
        "+1",
        "-1+1",
        "-cmd",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        " =1+1",
        "\xa0=1+1",
        "\u200b=1+1",
        "\ufeff=1+1",
        "\x00=1+1",
        '"=1+1',
        "\uff1d1+1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
    ],
)
def test_text_that_a_spreadsheet_would_evaluate_gets_an_apostrophe(value: str) -> None:
    assert written_cell(value) == "'" + value


@pytest.mark.parametrize("value", ["fine", "a=b", "2-1", "x@y.z", "-72.5751", "-5", "", "'quoted", "O'Brien", "a;b"])
def test_harmless_text_is_unchanged(value: str) -> None:
    assert written_cell(value) == value


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r"])
def test_formula_after_another_separator_gets_an_apostrophe(separator: str) -> None:
    assert written_cell(f"a{separator}=1+1") == f"a{separator}'=1+1"


def test_column_name_that_is_a_formula_gets_an_apostrophe() -> None:
    data, _ = csv_attachment.write([fraud({"=cmd|x": 1})], mask=True, max_bytes=UNLIMITED)
    assert rows(data)[0][3] == "'=cmd|x"


# Text of the characters that formula injections consist of.
hostile = st.text(
    st.sampled_from(FORMULA_STARTS + ' \t\r\n\xa0\u200b\ufeff;,"' + string.ascii_letters[:3] + "1."), max_size=12
)
values = hostile | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none()


# The first example loads Unicode's tables, which takes seconds on a busy machine.
without_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@without_deadline
@given(st.dictionaries(hostile, values, max_size=5), st.sampled_from(",;\t"))
def test_no_cell_is_a_formula_with_any_separator(record: dict[str, Any], delimiter: str) -> None:
    data, _ = csv_attachment.write([fraud(record)], mask=True, max_bytes=UNLIMITED)
    for row in rows(data, delimiter):
        for cell in row:
            text = cell.lstrip(' \t\r\n\xa0\u200b\ufeff"\x00')
            assert not text.startswith(tuple(FORMULA_STARTS)) or is_number(text.split(",")[0])


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text[0] == "-"


records = st.lists(st.dictionaries(st.sampled_from(["a", "b", 'c"', "d,", "=e"]), values, max_size=5), max_size=8)


@without_deadline
@given(records, st.integers(0, 400))
def test_file_is_as_large_as_the_limit_allows(records: list[dict[str, Any]], max_bytes: int) -> None:
    frauds = [fraud(record) for record in records]
    whole, count = csv_attachment.write(frauds, mask=True, max_bytes=UNLIMITED)
    assert count == len(frauds)
    exact, count = csv_attachment.write(frauds, mask=True, max_bytes=len(whole))
    assert (exact, count) == (whole, len(frauds))
    smaller, count = csv_attachment.write(frauds, mask=True, max_bytes=max_bytes)
    assert len(smaller) <= max_bytes or count == 0


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    data, _ = csv_attachment.write([fraud('{"merchant": "a\\ud800b"}')], mask=True, max_bytes=UNLIMITED)
    assert rows(data)[1][3] == "a?b"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["\n " * 500_000, " " * 1_000_000, "\t" * 1_000_000, ";=" * 500_000, "=" * 1_000_000])
def test_cell_takes_linear_time(text: str) -> None:
    assert len(csv_attachment.cell(text)) >= len(text)
