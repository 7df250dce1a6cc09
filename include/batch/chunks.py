"""Staged payments and their predictions as Parquet: one file pair for a bounded number of payments of one partition.

`payments-<partition>-<number>.parquet`: offset, row (null: the whole message), key, value, headers (msgpack), head,
tail, reason. A row with a reason is a dead letter and has no head; any other is a record (include/payments/decode.py).
Where a message holds several rows, value and headers stand with the first of them only.
`predictions-<partition>-<number>.parquet`: prediction (0, 1), probability, reason: line by line for the same rows.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from include.kafka.headers import Headers
from include.storage.staging import Storage

_PAYMENTS = pa.schema(
    {
        "offset": pa.int64(),
        "row": pa.int32(),
        "key": pa.binary(),
        "value": pa.binary(),
        "headers": pa.binary(),
        "head": pa.binary(),
        "tail": pa.binary(),
        "reason": pa.string(),
    }
)
# Of payments, that a step holds at once; what it makes of them comes on top.
HELD_BYTES = 48_000_000
_PREDICTIONS = pa.schema({"prediction": pa.int8(), "probability": pa.float64(), "reason": pa.string()})


@dataclass(slots=True)
class Columns:
    """A chunk's columns while it is filled."""

    offset: list[int] = field(default_factory=list)
    row: list[int | None] = field(default_factory=list)
    key: list[bytes | None] = field(default_factory=list)
    value: list[bytes | None] = field(default_factory=list)
    headers: list[bytes | None] = field(default_factory=list)
    head: list[bytes | None] = field(default_factory=list)
    tail: list[bytes | None] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)


def write_payments(storage: Storage, folder: str, partition: int, number: int, columns: Columns) -> None:
    table = pa.table({name: getattr(columns, name) for name in _PAYMENTS.names}, schema=_PAYMENTS)
    _write(storage, f"{folder}/payments-{partition}-{number}.parquet", table)


def read_payments(
    storage: Storage, folder: str, partition: int, number: int, names: Sequence[str]
) -> dict[str, list[Any]]:
    return _read(storage, f"{folder}/payments-{partition}-{number}.parquet", names)


def write_predictions(
    storage: Storage,
    folder: str,
    partition: int,
    number: int,
    *,
    prediction: Iterable[int | None],
    probability: Iterable[float | None],
    reason: Iterable[str | None],
) -> None:
    table = pa.table({"prediction": prediction, "probability": probability, "reason": reason}, schema=_PREDICTIONS)
    _write(storage, f"{folder}/predictions-{partition}-{number}.parquet", table)


def read_predictions(storage: Storage, folder: str, partition: int, number: int) -> dict[str, list[Any]]:
    return _read(storage, f"{folder}/predictions-{partition}-{number}.parquet", _PREDICTIONS.names)


def pack_headers(headers: Headers | dict[str, str | bytes | None] | None) -> bytes | None:
    if not headers:
        return None
    return msgspec.msgpack.encode(list(headers.items()) if isinstance(headers, dict) else headers)


def unpack_headers(packed: bytes | None) -> Headers:
    return msgspec.msgpack.decode(packed, type=list[tuple[str, bytes | None]]) if packed else []


@contextmanager
def paused_collector() -> Iterator[None]:
    """Millions of small objects that hold no cycles: the collector would look at them again and again for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _write(storage: Storage, path: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="lz4",
        use_dictionary=["tail", "reason"],
        write_statistics=False,
    )
    storage.write(path, sink.getvalue())


def _read(storage: Storage, path: str, names: Sequence[str]) -> dict[str, list[Any]]:
    table = pq.ParquetFile(pa.BufferReader(storage.need(path))).read(columns=list(names))
    return {name: table[name].to_pylist() for name in names}
