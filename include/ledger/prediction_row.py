"""Convert a message of the output topic to a row of the ledger's table of predictions, or say why it is not one.

A row is a line in the text format of PostgreSQL's COPY, and most of its bytes are copied from the message. No value of
a payment prevents its recording: a value that its column cannot hold is NULL there, and `payment` holds all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from confluent_kafka import Message

from include.kafka.headers import Headers
from include.ledger.copy_format import (
    NULL,
    amount_cell,
    escape,
    json_cell,
    key_cell,
    text_cell,
    time_cell,
    unix_time_cell,
    utc_text,
)
from include.payments.refusal import Refusal

COLUMNS = (
    "source_topic", "source_partition", "source_offset", "source_row", "trans_num", "cc_num", "merchant", "category",
    "amt", "paid_at", "prediction", "fraud_probability", "model_run_id", "model_name", "model_version", "batch_id",
    "scored_at", "output_partition", "output_offset", "payment",
)  # fmt: skip
KEY = COLUMNS[:4]

_SCORING = ("model_run_id", "model_name", "model_version", "batch_id", "scored_at")

_PREDICTIONS = {b"0": b"f", b"1": b"t"}
# Topic names as Kafka allows them, and numbers within PostgreSQL's integer and bigint. Each number has one spelling,
# because keys are compared as bytes.
_SOURCE = re.compile(rb"([A-Za-z0-9._-]{1,249})/(0|[1-9]\d{0,8})/(0|[1-9]\d{0,17})")
_ROW = re.compile(rb"0|[1-9]\d{0,8}")
_CACHE_ENTRIES = 10_000
_CACHED_VALUE_BYTES = 200


class PredictionRow(NamedTuple):
    """A line for COPY, with its line break. `key` is the payment's position on the input topic, in the order of KEY."""

    key: tuple[bytes, bytes, bytes, bytes]
    line: bytes


class _Payment(msgspec.Struct, gc=False):
    """The fields of a payment that have a column in the ledger; msgspec skips all others."""

    is_fraud: msgspec.Raw
    trans_num: msgspec.Raw = msgspec.Raw(b"null")
    cc_num: msgspec.Raw = msgspec.Raw(b"null")
    merchant: msgspec.Raw = msgspec.Raw(b"null")
    category: msgspec.Raw = msgspec.Raw(b"null")
    amt: msgspec.Raw = msgspec.Raw(b"null")
    trans_date_trans_time: msgspec.Raw = msgspec.Raw(b"null")
    unix_time: msgspec.Raw = msgspec.Raw(b"null")
    current_time: msgspec.Raw = msgspec.Raw(b"null")


class PredictionReader:
    """Convert messages of the output topic to rows. Values that many messages share are converted once and cached."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(list[_Payment]).decode
        self._scorings: dict[tuple[bytes | None, ...], bytes | Refusal] = {}
        self._probabilities: dict[bytes | None, bytes | Refusal] = {}
        self._texts: dict[bytes, bytes] = {}

    def read(self, message: Message, headers: Headers | None) -> PredictionRow | Refusal:
        """Return the message's row, or why it is not a prediction.

        `headers` are the message's: confluent-kafka returns them only once.
        """
        if not headers:
            return Refusal("no_headers", "it has no headers, which a prediction has")
        return self.row(message.partition() or 0, message.offset() or 0, message.value(), headers)

    def row(self, partition: int, offset: int, value: bytes | None, headers: Headers) -> PredictionRow | Refusal:
        """Return the row of a message at this partition and offset of the output topic, as `read` does."""
        value = value or b""
        header_values: Mapping[str, bytes | None] = dict(headers)  # type: ignore[arg-type]
        source = _SOURCE.fullmatch(header_values.get("source") or b"")
        if source is None:
            return Refusal("bad_source", "its header source is missing, or is not topic/partition/offset")
        row = header_values.get("row") or b""
        if row != b"0" and not _ROW.fullmatch(row):
            return Refusal("bad_row", "its header row is missing, or is no number")
        scoring = self._scoring(header_values)
        if isinstance(scoring, Refusal):
            return scoring
        probability = self._probability(header_values.get("fraud_probability"))
        if isinstance(probability, Refusal):
            return probability
        payment = self._payment(value)
        if isinstance(payment, Refusal):
            return payment
        prediction = _PREDICTIONS.get(bytes(payment.is_fraud))
        if prediction is None:
            return Refusal("bad_prediction", "its is_fraud is neither 0 nor 1")
        topic, source_partition, source_offset = source.groups()
        key = (topic, source_partition, source_offset, row)
        # In the order of COLUMNS.
        cells = (
            *key, key_cell(bytes(payment.trans_num)), text_cell(bytes(payment.cc_num)),
            self._cached_text(bytes(payment.merchant)), self._cached_text(bytes(payment.category)),
            amount_cell(bytes(payment.amt)), _paid_at(payment), prediction, probability, scoring,
            b"%d" % partition, b"%d" % offset, json_cell(value),
        )  # fmt: skip
        return PredictionRow(key, b"\t".join(cells) + b"\n")

    def _payment(self, value: bytes) -> _Payment | Refusal:
        try:
            if not value.isascii():
                value.decode()
            (payment,) = self._decode(value)
        except UnicodeDecodeError:
            return Refusal("not_utf8", "its value is not UTF-8 text")
        except (msgspec.DecodeError, RecursionError, ValueError):
            return Refusal("not_a_prediction", "its value is not a list of one JSON object with is_fraud")
        return payment

    def _scoring(self, headers: Mapping[str, bytes | None]) -> bytes | Refusal:
        """Return the cells of the _SCORING columns, which are the same in all messages of a batch."""
        get = headers.get
        values = (get("model_run_id"), get("model_name"), get("model_version"), get("batch_id"), get("scored_at"))
        cells = self._scorings.get(values)
        if cells is None:
            cells = _scoring_cells(dict(zip(_SCORING, values, strict=True)))
            if len(self._scorings) > _CACHE_ENTRIES:
                self._scorings.clear()
            if isinstance(cells, bytes) and len(cells) <= 5 * _CACHED_VALUE_BYTES:
                self._scorings[values] = cells
        return cells

    def _probability(self, header: bytes | None) -> bytes | Refusal:
        cell = self._probabilities.get(header)
        if cell is None:
            cell = _probability_cell(header)
            if len(self._probabilities) > _CACHE_ENTRIES:
                self._probabilities.clear()
            if isinstance(cell, bytes):
                self._probabilities[header] = cell
        return cell

    def _cached_text(self, value: bytes) -> bytes:
        """Return `text_cell` of a value from a column with few different values."""
        cell = self._texts.get(value)
        if cell is None:
            cell = text_cell(value)
            if len(self._texts) > _CACHE_ENTRIES:
                self._texts.clear()
            if len(value) <= _CACHED_VALUE_BYTES:
                self._texts[value] = cell
        return cell


def _scoring_cells(headers: Mapping[str, bytes | None]) -> bytes | Refusal:
    cells = []
    for name, value in headers.items():
        if not value:
            if name not in ("model_name", "model_version"):
                return Refusal(f"no_{name}", f"its header {name} is missing")
            cells.append(NULL)
            continue
        try:
            text = value.decode()
            if name == "scored_at":
                cells.append(utc_text(datetime.fromisoformat(text)).encode())
                continue
        except (ValueError, OverflowError):
            kind = "a time" if name == "scored_at" else "UTF-8 text"
            return Refusal(f"bad_{name}", f"its header {name} is not {kind}")
        if "\0" in text:
            return Refusal(f"bad_{name}", f"its header {name} holds a NUL character")
        cells.append(escape(value))
    return b"\t".join(cells)


def _probability_cell(header: bytes | None) -> bytes | Refusal:
    if header is None:
        return NULL
    try:
        number = float(header)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        return Refusal("bad_fraud_probability", "its header fraud_probability is no number from 0 to 1")
    return repr(number).encode()


def _paid_at(payment: _Payment) -> bytes:
    if (time := time_cell(bytes(payment.trans_date_trans_time))) != NULL:
        return time
    if (time := unix_time_cell(bytes(payment.unix_time))) != NULL:
        return time
    return unix_time_cell(bytes(payment.current_time))
