from __future__ import annotations

import gc

import pytest

from include.batch import chunks
from include.errors import StagingError
from include.kafka.headers import Headers
from include.storage.staging import Storage

NAMES = ("offset", "row", "key", "value", "headers", "head", "tail", "reason")


def columns() -> chunks.Columns:
    headers: Headers = [("a", b"1"), ("a", None), ("ü", b"\xff"), ("", b"")]
    return chunks.Columns(
        offset=[2**40, 2**40 + 1],
        row=[3, None],
        key=[b"", None],
        value=[b"\xff\x00", None],
        headers=[chunks.pack_headers(headers), None],
        head=[b"{", None],
        tail=[b"}", None],
        reason=[None, "empty_value: the message has no value"],
    )


def test_payments_keep_null_and_empty_values_apart(storage: Storage):
    chunks.write_payments(storage, "batch", 1, 2, columns())
    read = chunks.read_payments(storage, "batch", 1, 2, NAMES)
    assert read == {name: getattr(columns(), name) for name in NAMES}
    assert chunks.unpack_headers(read["headers"][0]) == [("a", b"1"), ("a", None), ("ü", b"\xff"), ("", b"")]
    assert chunks.unpack_headers(read["headers"][1]) == []


def test_predictions_are_read_as_they_were_written(storage: Storage):
    values = {"prediction": [1, 0, None], "probability": [0.1 + 0.2, None, None], "reason": [None, None, "x: y"]}
    chunks.write_predictions(storage, "batch", 0, 0, **values)  # type: ignore[arg-type]
    assert chunks.read_predictions(storage, "batch", 0, 0) == values


def test_missing_chunk_is_named(storage: Storage):
    with pytest.raises(StagingError, match=r"batch/payments-0-7\.parquet"):
        chunks.read_payments(storage, "batch", 0, 7, NAMES)


def test_garbage_collector_is_enabled_again_after_an_error():
    def fail() -> None:
        with chunks.paused_collector():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
