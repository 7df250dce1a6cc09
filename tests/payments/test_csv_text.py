"""CSV files, compressed or not: `fraud train --csv` and `fraud produce csv` read and refuse the same."""

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


def read_for_training(path: Path) -> list[dict[str, Any]]:
    frame = read_csv(path)[0]
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
    ]


def read_for_producing(path: Path) -> list[dict[str, Any]]:
    messages = itertools.chain.from_iterable(CsvPayments(path, rate=0).message_lists(threading.Event()))
    payloads = [json.loads(message.value) for message in messages]
    return [dict(zip(payload["columns"], payload["data"][0], strict=True)) for payload in payloads]


READERS: dict[str, tuple[Callable[[Path], list[dict[str, Any]]], type[FraudError]]] = {
    "train": (read_for_training, TrainingError),
    "produce": (read_for_producing, ProducerError),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> tuple[Callable[[Path], list[dict[str, Any]]], type[FraudError]]:
    return READERS[request.param]


def zip_file(files: dict[str, str], **options: Any) -> bytes:
    compressed = io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return compressed.getvalue()


ROWS = content(*({"trans_num": f"t{number}"} for number in range(200)))
COMPRESSED = {
    "gz": gzip.compress(ROWS.encode()),
    "bz2": bz2.compress(ROWS.encode()),
    "xz": lzma.compress(ROWS.encode()),
    "zip": zip_file({"fraudTrain.csv": ROWS, "__MACOSX/._fraudTrain.csv": "x", ".DS_Store": "x", "folder/": ""}),
    "csv": ROWS.encode(),
    "mark": ROWS.encode("utf-8-sig"),
    "PowerShell": ROWS.encode("utf-16"),
    "UTF-16 without a mark": ROWS.encode("utf-16-le"),
    "compressed UTF-16": gzip.compress(ROWS.encode("utf-16")),
}


@pytest.mark.parametrize("name", ["payments.csv", "payments.csv.gz", "payments.zip", "payments"])
@pytest.mark.parametrize("compressed", COMPRESSED)
def test_compressed_file_is_read_whatever_its_name(tmp_path: Path, reader: Any, compressed: str, name: str) -> None:
    (tmp_path / name).write_bytes(COMPRESSED[compressed])
    assert [row["trans_num"] for row in reader[0](tmp_path / name)] == [f"t{number}" for number in range(200)]


UNUSABLE = {
    "two files": (zip_file({"a.csv": ROWS, "b.csv": ROWS}), r"holds 2 files \(a.csv, b.csv\), and must hold one"),
    "no file": (zip_file({}), "holds 0 files, and must hold one"),
    "nine files": (zip_file({f"{number}.csv": "" for number in range(9)}), r"holds 9 files \(0.csv.*4.csv, …\)"),
    "spreadsheet": (zip_file({"[Content_Types].xml": "x", "xl/workbook.xml": "x"}), "is a spreadsheet: save it as CSV"),
    "cut zip": (COMPRESSED["zip"][:-60], "is damaged or truncated"),
    "cut zip start": (COMPRESSED["zip"][:100], "is damaged or truncated"),
    "password": (
        COMPRESSED["zip"].replace(b"\x00\x00\x08\x00", b"\x01\x00\x08\x00"),
        "cannot be decompressed .*password",
    ),
    "cut gz": (COMPRESSED["gz"][:-20], "is damaged or truncated"),
    "cut gz start": (COMPRESSED["gz"][:15], "is damaged or truncated"),
    "damaged gz": (COMPRESSED["gz"][:40] + b"hunter2" + COMPRESSED["gz"][47:], "is damaged or truncated"),
    "cut bz2": (COMPRESSED["bz2"][:-20], "is damaged or truncated"),
    "cut xz": (COMPRESSED["xz"][:-20], "is damaged or truncated"),
    "zstd": (b"\x28\xb5\x2f\xfd hunter2", "is compressed as Zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "is compressed as 7z"),
    "tar": (gzip.compress(b"payments.csv\0\0\0hunter2"), "is not a CSV file in UTF-8: it contains NUL bytes"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_file_error_is_one_line_without_content(tmp_path: Path, reader: Any, name: str) -> None:
    read, error_type = reader
    file_bytes, message = UNUSABLE[name]
    (tmp_path / "payments.csv").write_bytes(file_bytes)
    with pytest.raises(error_type, match=message) as error:
        read(tmp_path / "payments.csv")
    assert str(error.value).startswith(str(tmp_path / "payments.csv"))
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_damaged_bit_of_a_zip_is_noticed(tmp_path: Path, reader: Any) -> None:
    read, error_type = reader
    at = len(COMPRESSED["zip"]) // 3
    (tmp_path / "p.zip").write_bytes(
        COMPRESSED["zip"][:at] + bytes([COMPRESSED["zip"][at] ^ 1]) + COMPRESSED["zip"][at + 1 :]
    )
    with pytest.raises(error_type, match=r"damaged or truncated|not UTF-8|in UTF-8|lacks the columns"):
        read(tmp_path / "p.zip")


@pytest.mark.parametrize("name", TEXTS)
def test_words_for_null_stay_texts(tmp_path: Path, reader: Any, name: str) -> None:
    (tmp_path / "p.csv").write_text(content(*({name: word} for word in [*EMPTY_WORDS, "", "x"])))
    assert [row[name] for row in reader[0](tmp_path / "p.csv")] == [*EMPTY_WORDS, None, "x"]


@pytest.mark.parametrize("name", NUMBERS)
def test_empty_number_is_null(tmp_path: Path, reader: Any, name: str) -> None:
    (tmp_path / "p.csv").write_text(content({name: "1"}, {name: ""}))
    assert [row[name] for row in reader[0](tmp_path / "p.csv")] == [1, None]


@pytest.mark.parametrize("word", ["NA", "None", "nan", "x"])
def test_word_among_numbers_is_located_and_kept(tmp_path: Path, word: str) -> None:
    (tmp_path / "p.csv").write_text(content({}, {"amt": word}, {"amt": ""}))
    with pytest.raises(TrainingError, match="amt is not a number in 1 of 3 payments, first in row 2"):
        validate(read_csv(tmp_path / "p.csv")[0], COLUMNS, ("amt",))
    assert [row["amt"] for row in read_for_producing(tmp_path / "p.csv")] == [1, word, None]
