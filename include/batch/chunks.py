"""Read and write chunks: Parquet files with some of a partition's rows, and files with their predictions.

`payments-<partition>-<number>.parquet` has the columns offset, row, key, value, headers (msgpack), head, tail, reason.
Each row of the file is one row of a message, and the column `row` is its number in the message, from 0. A row with a
reason is a dead letter; if the whole message is refused, it is one row, with null in the column `row`. Any other row is
a payment, whose JSON text is head, prediction and tail (include/payments/decode.py). Of a message with several rows,
only the first has value and headers.

`predictions-<partition>-<number>.parquet` has the columns prediction (0 or 1), probability and reason, with a row for
each row of the payments, or for the first of them if scoring reached its time limit.
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
_PREDICTIONS = pa.schema({"prediction": pa.int8(), "probability": pa.float64(), "reason": pa.string()})
# Payments are stored or scored once a step holds this many bytes of them. It may hold the next ones meanwhile, so about
# twice as many at most. What it computes from them takes further memory.
MAX_BUFFERED_BYTES = 48_000_000


@dataclass(slots=True)
class Columns:
    """The columns of a chunk while rows are added, as they are in the file."""

    offset: list[int] = field(default_factory=list)
    row: list[int | None] = field(default_factory=list)
    key: list[bytes | None] = field(default_factory=list)
    value: list[bytes | None] = field(default_factory=list)
    headers: list[bytes | None] = field(default_factory=list)
    head: list[bytes | None] = field(default_factory=list)
    tail: list[bytes | None] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)


def write_payments(storage: Storage, folder: str, partition: int, number: int, columns: Columns) -> None:
    """Write the payments of a partition's chunk; `number` counts its chunks from 0."""
    table = pa.table({name: getattr(columns, name) for name in _PAYMENTS.names}, schema=_PAYMENTS)
    _write(storage, f"{folder}/payments-{partition}-{number}.parquet", table)


def read_payments(
    storage: Storage, folder: str, partition: int, number: int, names: Sequence[str]
) -> dict[str, list[Any]]:
    """Return the named columns of a partition's chunk. Raise StagedFileGoneError if there is no such file."""
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
    """Write the predictions of a partition's chunk."""
    table = pa.table({"prediction": prediction, "probability": probability, "reason": reason}, schema=_PREDICTIONS)
    _write(storage, f"{folder}/predictions-{partition}-{number}.parquet", table)


def read_predictions(storage: Storage, folder: str, partition: int, number: int) -> dict[str, list[Any]]:
    """Return all columns of a chunk's predictions. Raise StagedFileGoneError if there is no such file."""
    return _read(storage, f"{folder}/predictions-{partition}-{number}.parquet", _PREDICTIONS.names)


def pack_headers(headers: Headers | None) -> bytes | None:
    """Return a message's headers as msgpack, None if it has none."""
    return msgspec.msgpack.encode(headers) if headers else None


def unpack_headers(packed: bytes | None) -> Headers:
    """Return the headers that `pack_headers` packed."""
    return msgspec.msgpack.decode(packed, type=list[tuple[str, bytes | None]]) if packed else []


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause Python's garbage collector: it would traverse millions of small objects, which form no cycles."""
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
        # Texts that many rows share. The values of the other large columns are rarely equal; of the small columns,
        # such as row and prediction, a dictionary would save less than 1 % of a chunk, because lz4 compresses them.
        use_dictionary=["tail", "reason"],
        write_statistics=False,
    )
    storage.write(path, sink.getvalue())


def _read(storage: Storage, path: str, names: Sequence[str]) -> dict[str, list[Any]]:
    table = pq.ParquetFile(pa.BufferReader(storage.need(path))).read(columns=list(names))
    return {name: table[name].to_pylist() for name in names}
