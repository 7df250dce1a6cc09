"""Conversion of the output topic's messages to rows for COPY."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.ledger.prediction_row import COLUMNS, PredictionReader
from include.payments.refusal import Refusal

HEADERS = {
    "model_run_id": "a" * 32, "model_name": "fraud", "model_version": "3", "batch_id": "20260101T000000Z-abcdef",
    "scored_at": "2026-01-01T00:00:00+00:00", "source": "topic_1/2/17", "row": "0", "fraud_probability": "0.25",
}  # fmt: skip
PAYMENT = {
    "trans_date_trans_time": "2024-10-31 15:56:25", "cc_num": 377895991033232, "merchant": "fraud_McDermott",
    "category": "home", "amt": 16.18, "trans_num": "64b632ebfbc52a10", "unix_time": 1730390185811, "is_fraud": 1,
    "fraud_confirmed": None,
}  # fmt: skip


def read(value: object, **headers: str | None) -> dict[str, str] | Refusal:
    content = value if isinstance(value, bytes | None) else json.dumps([value]).encode()
    present = {name: text for name, text in (HEADERS | headers).items() if text is not None}
    row = PredictionReader().row(1, 5, content, [(name, text.encode()) for name, text in present.items()])
    if isinstance(row, Refusal):
        return row
    assert row.line.endswith(b"\n")
    cells = row.line[:-1].decode().split("\t")
    return dict(zip(COLUMNS, cells, strict=True))


def row_with(**values: Any) -> dict[str, str]:
    row = read({**PAYMENT, **values})
    assert not isinstance(row, Refusal)
    return row


def test_prediction_becomes_one_row():
    assert row_with() == {
        "source_topic": "topic_1", "source_partition": "2", "source_offset": "17", "source_row": "0",
        "trans_num": "64b632ebfbc52a10", "cc_num": "377895991033232", "merchant": "fraud_McDermott",
        "category": "home", "amt": "16.18", "paid_at": "2024-10-31 15:56:25", "prediction": "t",
        "fraud_probability": "0.25", "model_run_id": "a" * 32, "model_name": "fraud", "model_version": "3",
        "batch_id": "20260101T000000Z-abcdef", "scored_at": "2026-01-01T00:00:00+00:00", "output_partition": "1",
        "output_offset": "5", "payment": json.dumps(PAYMENT),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "cell"),
    [
        ("cc_num", 4999999999999999999, "4999999999999999999"),
        ("cc_num", "0045 12", "0045 12"),
        ("cc_num", None, "\\N"),
        ("trans_num", "", "\\N"),
        ("trans_num", 17, "17"),
        ("trans_num", 'a\\b"\tc\u0000', 'a\\\\b"\\tc\ufffd'),
        ("trans_num", ["x"], '["x"]'),
        ("trans_num", "x" * 1_000, "x" * 1_000),
        ("trans_num", "x" * 1_001, "\\N"),
        ("trans_num", " \t", "\\N"),
        ("trans_num", "\f", "\\N"),
        ("merchant", "Čapek", "Čapek"),
        ("merchant", "x" * 300, "x" * 300),
        ("amt", "12.50", "12.50"),
        ("amt", -3, "-3"),
        ("amt", 1e300, "1E+300"),
        ("amt", "1e400000", "\\N"),
        ("amt", "NaN", "\\N"),
        ("amt", "1_000", "\\N"),
        ("amt", "twelve", "\\N"),
        ("amt", True, "\\N"),
        ("trans_date_trans_time", "2024-10-31T15:56:25+02:00", "2024-10-31T13:56:25+00:00"),
        ("trans_date_trans_time", "20241031", "2024-10-31T00:00:00+00:00"),
        ("trans_date_trans_time", "yesterday", "2024-10-31T15:56:25.811000+00:00"),
        ("trans_date_trans_time", "2024-10-31 15:56,25", "2024-10-31T15:56:00.250000+00:00"),
        ("trans_date_trans_time", "2024-10-31 15+01:00", "2024-10-31T14:00:00+00:00"),
        ("trans_date_trans_time", 1380112045, "2024-10-31T15:56:25.811000+00:00"),
        ("trans_date_trans_time", None, "2024-10-31T15:56:25.811000+00:00"),
    ],
)
def test_value_is_kept_exactly_or_null(column: str, value: object, cell: str):
    name = "paid_at" if column == "trans_date_trans_time" else column
    assert row_with(**{column: value})[name] == cell


def test_current_time_is_read_in_seconds_and_milliseconds():
    older = {name: value for name, value in PAYMENT.items() if name not in ("trans_date_trans_time", "unix_time")}
    milliseconds, seconds = read({**older, "current_time": 1730390185811}), read({**older, "current_time": 1730390185})
    assert not isinstance(milliseconds, Refusal)
    assert not isinstance(seconds, Refusal)
    assert milliseconds["paid_at"] == "2024-10-31T15:56:25.811000+00:00"
    assert seconds["paid_at"] == "2024-10-31T15:56:25+00:00"
    assert read(older)["paid_at"] == "\\N"  # type: ignore[index]


def test_nul_escapes_are_replaced_and_the_payment_stays_readable():
    payment = b'{"is_fraud":1,"city":"a\\u0000b","path":"c:\\\\u0000","last":"\\\\\\u0000"}'
    row = read(b"[" + payment + b"]")
    assert not isinstance(row, Refusal)
    published = row["payment"].replace("\\\\", "\\")
    assert json.loads(published) == {"is_fraud": 1, "city": "a\ufffdb", "path": "c:\\u0000", "last": "\\\ufffd"}


def test_missing_model_name_and_probability_are_null():
    row = read(PAYMENT, model_name=None, model_version=None, fraud_probability=None)
    assert not isinstance(row, Refusal)
    assert (row["model_name"], row["model_version"], row["fraud_probability"]) == ("\\N", "\\N", "\\N")


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (None, {}, "not_a_prediction"),
        (b"", {}, "not_a_prediction"),
        (b"{}", {}, "not_a_prediction"),
        (b"[]", {}, "not_a_prediction"),
        (b"[{}]", {}, "not_a_prediction"),
        (b'[{"is_fraud":1},{"is_fraud":1}]', {}, "not_a_prediction"),
        (b'[{"is_fraud":1}', {}, "not_a_prediction"),
        (b'[{"is_fraud":1,"first":"\xff"}]', {}, "not_utf8"),
        (b"[" * 100_000 + b"]" * 100_000, {}, "not_a_prediction"),
        (b'[{"is_fraud":2}]', {}, "bad_prediction"),
        (b'[{"is_fraud":true}]', {}, "bad_prediction"),
        (b'[{"is_fraud":null}]', {}, "bad_prediction"),
        (PAYMENT, {"source": None}, "bad_source"),
        (PAYMENT, {"source": "topic_1/2"}, "bad_source"),
        (PAYMENT, {"source": "topic_1/2/9999999999999999999"}, "bad_source"),
        (PAYMENT, {"source": "topic\t1/2/3"}, "bad_source"),
        (PAYMENT, {"row": None}, "bad_row"),
        (PAYMENT, {"row": "-1"}, "bad_row"),
        (PAYMENT, {"row": "00"}, "bad_row"),
        (PAYMENT, {"source": "topic_1/2/017"}, "bad_source"),
        (PAYMENT, {"model_run_id": None}, "no_model_run_id"),
        (PAYMENT, {"batch_id": ""}, "no_batch_id"),
        (PAYMENT, {"batch_id": "a\0b"}, "bad_batch_id"),
        (PAYMENT, {"scored_at": None}, "no_scored_at"),
        (PAYMENT, {"scored_at": "noon"}, "bad_scored_at"),
        (PAYMENT, {"fraud_probability": "nan"}, "bad_fraud_probability"),
        (PAYMENT, {"fraud_probability": "2"}, "bad_fraud_probability"),
    ],
)
def test_other_message_is_refused_with_a_code(value: object, headers: dict[str, str | None], code: str):
    refused = read(value, **headers)
    assert isinstance(refused, Refusal)
    assert refused.code == code
