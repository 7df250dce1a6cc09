"""Replaying a CSV file: values stay as they are written, and errors name the fault."""

from __future__ import annotations

import csv
import itertools
import json
import threading
import time
from pathlib import Path

import pytest

from include.errors import ProducerError
from include.payments.columns import COLUMNS
from include.producer.csv_file import CsvPayments
from include.producer.message import PaymentMessage

FIELDS = {
    "trans_date_trans_time": "2019-01-01 00:00:18",
    "cc_num": "4586834497869073662",
    "merchant": 'fraud_"Rippin", Kub and Mann',
    "category": "misc_net",
    "amt": "4.970",
    "first": "Zoë",
    "last": "Banks",
    "gender": "F",
    "street": "561 Perry Cove\nApt. 2",
    "city": "Moravian Falls",
    "state": "NC",
    "zip": "28654",
    "lat": "36.0788",
    "long": "-81.1781",
    "city_pop": "3495",
    "job": "Psychologist, counselling",
    "dob": "1988-03-09",
    "trans_num": "0b242abb623afc578575680df30655b9",
    "unix_time": "1325376018",
    "merch_lat": "36.011293",
    "merch_long": "-82.048315",
    "is_fraud": "0",
}


def write(path: Path, *rows: dict[str, str], names: list[str] | None = None, encoding: str = "utf-8") -> Path:
    names = names or list(COLUMNS)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([row.get(name, "") for name in names] for row in rows)
    return path


def read(path: Path, **options: object) -> list[PaymentMessage]:
    source = CsvPayments(path, rate=0, **options)  # type: ignore[arg-type]
    return list(itertools.chain.from_iterable(source.message_lists(threading.Event())))


def raw_values(message: PaymentMessage) -> dict[str, object]:
    """Return the values, with each number as a tuple of its text, so that it differs from a string."""

    def number(text: str) -> tuple[str]:
        return (text,)

    split = json.loads(message.value, parse_int=number, parse_float=number)
    assert split["columns"] == list(COLUMNS)
    return dict(zip(split["columns"], split["data"][0], strict=True))


def test_values_are_sent_as_they_are_written(tmp_path: Path) -> None:
    [message] = read(write(tmp_path / "p.csv", FIELDS))
    numbers = ["cc_num", "amt", "zip", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long", "is_fraud"]
    assert raw_values(message) == FIELDS | {name: (FIELDS[name],) for name in numbers}
    assert message.key == b"4586834497869073662"


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("cc_num", "0604620000001", "0604620000001"),
        ("cc_num", "4586-8344", "4586-8344"),
        ("zip", "06441", "06441"),
        ("amt", "1e3", ("1e3",)),
        ("amt", "12.", "12."),
        ("amt", "NaN", "NaN"),
        ("amt", " 5", " 5"),
        ("amt", "", None),
        ("first", "", None),
        ("first", "123", "123"),
        ("first", "null", "null"),
    ],
)
def test_field_that_is_no_json_number_is_a_string(tmp_path: Path, name: str, field: str, expected: object) -> None:
    [message] = read(write(tmp_path / "p.csv", FIELDS | {name: field}))
    assert raw_values(message)[name] == expected


def test_payment_without_card_has_no_key(tmp_path: Path) -> None:
    [message] = read(write(tmp_path / "p.csv", FIELDS | {"cc_num": ""}))
    assert message.key is None


def test_columns_in_any_order_with_index_and_unknown_ones_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", FIELDS | {"": "144842"}, names=["", "stranger", *reversed(COLUMNS)])
    [message] = read(path)
    assert message.value == read(write(tmp_path / "q.csv", FIELDS))[0].value.replace(b"[0]", b"[144842]", 1)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "p.csv", FIELDS, encoding="utf-8-sig"))) == 1


def test_missing_columns_error_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", FIELDS, names=[name for name in COLUMNS if name not in ("amt", "dob")])
    with pytest.raises(ProducerError, match="lacks the columns amt, dob"):
        CsvPayments(path, rate=0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "lacks the columns"), (",".join(COLUMNS).encode() + b"\n" + b"\xff\xfe,\n", "not UTF-8")],
)
def test_file_that_is_empty_or_not_utf8_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(ProducerError, match=reason):
        read(path)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProducerError, match=r"absent\.csv cannot be read: No such file"):
        CsvPayments(tmp_path / "absent.csv", rate=0)


def test_file_without_payments_is_an_error_even_in_a_loop(tmp_path: Path) -> None:
    with pytest.raises(ProducerError, match="holds no payments"):
        read(write(tmp_path / "p.csv"), loop=True)


def test_rows_with_too_few_fields_are_counted_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", FIELDS)
    with path.open("a") as file:
        file.write("2019-01-01 00:00:18,4586834497869073662\n\n")
    source = CsvPayments(path, rate=0)
    assert sum(map(len, source.message_lists(threading.Event()))) == 1
    assert source.status() == "p.csv, 1 unusable lines"


def test_loop_begins_again_and_count_ends_it(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", *({**FIELDS, "trans_num": str(number)} for number in range(3)))
    numbers = [raw_values(message)["trans_num"] for message in read(path, loop=True, count=7)]
    assert numbers == ["0", "1", "2", "0", "1", "2", "0"]
    assert len(read(path, count=2)) == 2


def test_now_replaces_both_times(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    [message] = read(write(tmp_path / "p.csv", FIELDS), now=True)
    after = time.time_ns() // 1_000_000
    payment = dict(zip(COLUMNS, json.loads(message.value)["data"][0], strict=True))
    assert before <= payment["unix_time"] <= after
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(payment["unix_time"] // 1000))
    assert payment["trans_date_trans_time"] == written


def test_file_is_streamed(tmp_path: Path) -> None:
    """The first payments are sent although the end of the file is damaged."""
    path = write(tmp_path / "p.csv", *itertools.repeat(FIELDS, 5_000))
    with path.open("ab") as file:
        file.write(b"\xff\xff\n")
    lists = CsvPayments(path, rate=0).message_lists(threading.Event())
    assert len(next(lists)) == 1_000
