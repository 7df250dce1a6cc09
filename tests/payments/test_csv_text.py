"""A CSV file as people have it: `fraud train --csv` and `fraud produce csv` read the same, or refuse the same."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from include.errors import FraudError, ProducerError, TrainingError
from include.payments.columns import COLUMNS, NUMBERS
from include.producer.csv_file import CsvPayments
from include.training.training_data import read_csv, validate

TEXTS = [name for name in COLUMNS if name not in NUMBERS]
EMPTY_WORDS = ["NA", "N/A", "None", "null", "NULL", "nan", "NaN", "n/a", "#N/A", "-nan", "<NA>", "inf", "true", "0001"]
PAYMENT = dict.fromkeys(COLUMNS, "1") | {"trans_date_trans_time": "2024-01-01 00:00:00", "dob": "1990-01-01"}


def content(*rows: dict[str, str], separator: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, delimiter=separator)
    writer.writeheader()
    writer.writerows(PAYMENT | row for row in rows)
    return text.getvalue()


def trained(path: Path) -> list[dict[str, Any]]:
    frame = read_csv(path)[0]
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
    ]


def produced(path: Path) -> list[dict[str, Any]]:
    messages = itertools.chain.from_iterable(CsvPayments(path, rate=0).batches(threading.Event()))
    payloads = [json.loads(message.value) for message in messages]
    return [dict(zip(one["columns"], one["data"][0], strict=True)) for one in payloads]


READERS: dict[str, tuple[Callable[[Path], list[dict[str, Any]]], type[FraudError]]] = {
    "train": (trained, TrainingError),
    "produce": (produced, ProducerError),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> tuple[Callable[[Path], list[dict[str, Any]]], type[FraudError]]:
    return READERS[request.param]


def zipped(files: dict[str, str], **options: Any) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


ROWS = content(*({"trans_num": f"t{number}"} for number in range(200)))
PACKED = {
    "gz": gzip.compress(ROWS.encode()),
    "bz2": bz2.compress(ROWS.encode()),
    "xz": lzma.compress(ROWS.encode()),
    "zip": zipped({"fraudTrain.csv": ROWS, "__MACOSX/._fraudTrain.csv": "x", ".DS_Store": "x", "folder/": ""}),
    "csv": ROWS.encode(),
    "mark": ROWS.encode("utf-8-sig"),
    "PowerShell": ROWS.encode("utf-16"),
    "UTF-16 without a mark": ROWS.encode("utf-16-le"),
    "packed UTF-16": gzip.compress(ROWS.encode("utf-16")),
}


@pytest.mark.parametrize("name", ["payments.csv", "payments.csv.gz", "payments.zip", "payments"])
@pytest.mark.parametrize("packed", PACKED)
def test_a_packed_file_is_read_whatever_its_name(tmp_path: Path, reader: Any, packed: str, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[packed])
    assert [row["trans_num"] for row in reader[0](tmp_path / name)] == [f"t{number}" for number in range(200)]


UNUSABLE = {
    "two files": (zipped({"a.csv": ROWS, "b.csv": ROWS}), r"holds 2 files \(a.csv, b.csv\), and must hold one"),
    "no file": (zipped({}), "holds 0 files, and must hold one"),
    "nine files": (zipped({f"{number}.csv": "" for number in range(9)}), r"holds 9 files \(0.csv.*4.csv, …\)"),
    "spreadsheet": (zipped({"[Content_Types].xml": "x", "xl/workbook.xml": "x"}), "is a spreadsheet: save it as CSV"),
    "cut zip": (PACKED["zip"][:-60], "is damaged or truncated"),
    "cut zip start": (PACKED["zip"][:100], "is damaged or truncated"),
    "password": (PACKED["zip"].replace(b"\x00\x00\x08\x00", b"\x01\x00\x08\x00"), "cannot be unpacked here .*password"),
    "cut gz": (PACKED["gz"][:-20], "is damaged or truncated"),
    "cut gz start": (PACKED["gz"][:15], "is damaged or truncated"),
    "damaged gz": (PACKED["gz"][:40] + b"hunter2" + PACKED["gz"][47:], "is damaged or truncated"),
    "cut bz2": (PACKED["bz2"][:-20], "is damaged or truncated"),
    "cut xz": (PACKED["xz"][:-20], "is damaged or truncated"),
    "zstd": (b"\x28\xb5\x2f\xfd hunter2", "is packed as Zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "is packed as 7z"),
    "tar": (gzip.compress(b"payments.csv\0\0\0hunter2"), "is not a CSV file in UTF-8: it contains NUL bytes"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_unpacked_is_one_clear_line(tmp_path: Path, reader: Any, name: str) -> None:
    read, raised = reader
    made, why = UNUSABLE[name]
    (tmp_path / "payments.csv").write_bytes(made)
    with pytest.raises(raised, match=why) as error:
        read(tmp_path / "payments.csv")
    assert str(error.value).startswith(str(tmp_path / "payments.csv"))
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_damaged_bit_of_a_zip_is_noticed(tmp_path: Path, reader: Any) -> None:
    read, raised = reader
    at = len(PACKED["zip"]) // 3
    (tmp_path / "p.zip").write_bytes(PACKED["zip"][:at] + bytes([PACKED["zip"][at] ^ 1]) + PACKED["zip"][at + 1 :])
    with pytest.raises(raised, match=r"damaged or truncated|not UTF-8|in UTF-8|lacks the columns"):
        read(tmp_path / "p.zip")


@pytest.mark.parametrize("name", TEXTS)
def test_a_name_is_not_taken_for_an_empty_field(tmp_path: Path, reader: Any, name: str) -> None:
    (tmp_path / "p.csv").write_text(content(*({name: word} for word in [*EMPTY_WORDS, "", "x"])))
    assert [row[name] for row in reader[0](tmp_path / "p.csv")] == [*EMPTY_WORDS, None, "x"]


@pytest.mark.parametrize("name", NUMBERS)
def test_an_empty_number_stays_empty(tmp_path: Path, reader: Any, name: str) -> None:
    (tmp_path / "p.csv").write_text(content({name: "1"}, {name: ""}))
    assert [row[name] for row in reader[0](tmp_path / "p.csv")] == [1, None]


@pytest.mark.parametrize("word", ["NA", "None", "nan", "x"])
def test_a_word_among_numbers_is_located_and_no_empty_field(tmp_path: Path, word: str) -> None:
    (tmp_path / "p.csv").write_text(content({}, {"amt": word}, {"amt": ""}))
    with pytest.raises(TrainingError, match="amt is not a number in 1 of 3 payments, first in row 2"):
        validate(read_csv(tmp_path / "p.csv")[0], COLUMNS, ("amt",))
    assert [row["amt"] for row in produced(tmp_path / "p.csv")] == [1, word, None]
