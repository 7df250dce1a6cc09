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
BOUNDLESS = 10**9


def fraud(record: dict[str, Any] | str, probability: float | None = 0.9, offset: int = 7) -> Fraud:
    text = record if isinstance(record, str) else json.dumps(record)
    return Fraud(f"topic_1/0/{offset}", 0, probability, text.encode())


def rows(data: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def one(value: Any, **options: Any) -> str:
    data, count = csv_attachment.write([fraud({"x": value})], mask=True, max_bytes=BOUNDLESS, **options)
    assert count == 1
    return rows(data)[1][3]


def test_every_column_in_its_order_with_where_it_came_from() -> None:
    record = '{"amt": 16.18, "cc_num": "4556123412349012", "is_fraud": 1, "fraud_confirmed": null}'
    data, _ = csv_attachment.write([fraud(record, 0.875)], mask=True, max_bytes=BOUNDLESS)
    assert rows(data) == [
        ["source", "row", "fraud_probability", "amt", "cc_num", "is_fraud", "fraud_confirmed"],
        ["topic_1/0/7", "0", "0.875", "16.18", "455612******9012", "1", ""],
    ]


def test_excel_is_told_that_it_is_utf_8() -> None:
    data, _ = csv_attachment.write([fraud({"city": "Zürich"})], mask=True, max_bytes=BOUNDLESS)
    assert data.startswith(b"\xef\xbb\xbf")
    assert "Zürich".encode() in data


def test_numbers_keep_every_digit() -> None:
    record = '{"cc_num": 4556123412349012345, "a": 1.10, "b": 4.2e18, "c": -72.5751, "d": -0.0, "e": 1730390185811}'
    data, _ = csv_attachment.write([fraud(record)], mask=False, max_bytes=BOUNDLESS)
    assert rows(data)[1][3:] == ["4556123412349012345", "1.10", "4.2e18", "-72.5751", "-0.0", "1730390185811"]


@pytest.mark.parametrize("card", [4556123412349012345, "4556123412349012345", "4556-1234-1234-9012345"])
def test_cards_are_masked_unless_told_otherwise(card: int | str) -> None:
    masked, _ = csv_attachment.write([fraud({"cc_num": card})], mask=True, max_bytes=BOUNDLESS)
    shown, _ = csv_attachment.write([fraud({"cc_num": card})], mask=False, max_bytes=BOUNDLESS)
    assert rows(masked)[1][3] == "455612*********2345"
    assert rows(shown)[1][3] == str(card)


@pytest.mark.parametrize("card", [4.2e18, {"number": "4556123412349012"}, ["4556123412349012"], True])
def test_an_odd_card_shows_nothing(card: object) -> None:
    data, _ = csv_attachment.write([fraud({"cc_num": card})], mask=True, max_bytes=BOUNDLESS)
    assert rows(data)[1][3] == "****"


def test_payments_with_different_columns_share_one_table() -> None:
    data, _ = csv_attachment.write([fraud({"a": 1, "b": 2}), fraud({"c": 3, "a": 4})], mask=True, max_bytes=BOUNDLESS)
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
def test_text_that_a_spreadsheet_would_run_is_neutralised(value: str) -> None:
    assert one(value) == "'" + value


@pytest.mark.parametrize("value", ["fine", "a=b", "2-1", "x@y.z", "-72.5751", "-5", "", "'quoted", "O'Brien", "a;b"])
def test_harmless_text_stays_as_it_is(value: str) -> None:
    assert one(value) == value


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r"])
def test_no_other_separator_opens_a_cell(separator: str) -> None:
    assert one(f"a{separator}=1+1") == f"a{separator}'=1+1"


def test_a_columns_name_is_no_formula_either() -> None:
    data, _ = csv_attachment.write([fraud({"=cmd|x": 1})], mask=True, max_bytes=BOUNDLESS)
    assert rows(data)[0][3] == "'=cmd|x"


# Text made of what such attacks are made of.
hostile = st.text(
    st.sampled_from(FORMULA_STARTS + ' \t\r\n\xa0\u200b\ufeff;,"' + string.ascii_letters[:3] + "1."), max_size=12
)
values = hostile | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none()


# The first draw loads Unicode's tables, which takes seconds on a busy machine.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@patiently
@given(st.dictionaries(hostile, values, max_size=5), st.sampled_from(",;\t"))
def test_no_cell_runs_whichever_the_separator(record: dict[str, Any], delimiter: str) -> None:
    data, _ = csv_attachment.write([fraud(record)], mask=True, max_bytes=BOUNDLESS)
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


@patiently
@given(records, st.integers(0, 400))
def test_the_bound_holds_and_is_used(records: list[dict[str, Any]], max_bytes: int) -> None:
    frauds = [fraud(record) for record in records]
    whole, count = csv_attachment.write(frauds, mask=True, max_bytes=BOUNDLESS)
    assert count == len(frauds)
    exact, count = csv_attachment.write(frauds, mask=True, max_bytes=len(whole))
    assert (exact, count) == (whole, len(frauds))
    smaller, count = csv_attachment.write(frauds, mask=True, max_bytes=max_bytes)
    assert len(smaller) <= max_bytes or count == 0


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    data, _ = csv_attachment.write([fraud('{"merchant": "a\\ud800b"}')], mask=True, max_bytes=BOUNDLESS)
    assert rows(data)[1][3] == "a?b"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["\n " * 500_000, " " * 1_000_000, "\t" * 1_000_000, ";=" * 500_000, "=" * 1_000_000])
def test_a_hostile_cell_takes_no_longer_than_it_is_long(text: str) -> None:
    assert len(csv_attachment.cell(text)) >= len(text)
