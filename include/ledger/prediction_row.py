"""One message of the output topic as one row of the ledger, or why it is none.

A row is a line for PostgreSQL's COPY in its text format: most of it are bytes of the message as they are. What a
payment holds is never a reason to refuse it: a value that its column cannot take is null there; `payment` has all.
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
    escaped,
    json_cell,
    name_cell,
    text_cell,
    time_cell,
    unix_time_cell,
    utc,
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
# What Kafka allows as a topic, and what an integer and a bigint of PostgreSQL hold.
# One way to write each number: keys are compared as they are written.
_SOURCE = re.compile(rb"([A-Za-z0-9._-]{1,249})/(0|[1-9]\d{0,8})/(0|[1-9]\d{0,17})")
_ROW = re.compile(rb"0|[1-9]\d{0,8}")
_KEPT = 10_000
_KEPT_BYTES = 200


class Row(NamedTuple):
    """`key` is the place of the payment on the input topic, as bytes; `line` ends with a line break."""

    key: tuple[bytes, bytes, bytes, bytes]
    line: bytes


class _Payment(msgspec.Struct, gc=False):
    """The columns of the ledger; all others are skipped."""

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
    """Keeps what many messages have in common; of one task only."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(list[_Payment]).decode
        self._scorings: dict[tuple[bytes | None, ...], bytes | Refusal] = {}
        self._probabilities: dict[bytes | None, bytes | Refusal] = {}
        self._texts: dict[bytes, bytes] = {}

    def read(self, message: Message, headers: Headers | None) -> Row | Refusal:
        """`headers` are the message's, which can be asked for them only once."""
        if not headers:
            return Refusal("no_headers", "it has no headers, which a prediction has")
        return self.row(message.partition() or 0, message.offset() or 0, message.value(), headers)

    def row(self, partition: int, offset: int, value: bytes | None, headers: Headers) -> Row | Refusal:
        """`partition` and `offset` are those of the output topic."""
        value = value or b""
        given: Mapping[str, bytes | None] = dict(headers)  # type: ignore[arg-type]
        source = _SOURCE.fullmatch(given.get("source") or b"")
        if source is None:
            return Refusal("bad_source", "its header source is missing, or is not topic/partition/offset")
        row = given.get("row") or b""
        if row != b"0" and not _ROW.fullmatch(row):
            return Refusal("bad_row", "its header row is missing, or is no number")
        scoring = self._scoring(given)
        if isinstance(scoring, Refusal):
            return scoring
        probability = self._probability(given.get("fraud_probability"))
        if isinstance(probability, Refusal):
            return probability
        payment = self._payment(value)
        if isinstance(payment, Refusal):
            return payment
        prediction = _PREDICTIONS.get(bytes(payment.is_fraud))
        if prediction is None:
            return Refusal("bad_prediction", "its is_fraud is neither 0 nor 1")
        topic, part, at = source.groups()
        key = (topic, part, at, row)
        # All that a line is made of, in the order of COLUMNS.
        cells = (
            topic, part, at, row, name_cell(bytes(payment.trans_num)), text_cell(bytes(payment.cc_num)),
            self._repeated(bytes(payment.merchant)), self._repeated(bytes(payment.category)),
            amount_cell(bytes(payment.amt)), _paid_at(payment), prediction, probability, scoring,
            b"%d" % partition, b"%d" % offset, json_cell(value),
        )  # fmt: skip
        return Row(key, b"\t".join(cells) + b"\n")

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

    def _scoring(self, given: Mapping[str, bytes | None]) -> bytes | Refusal:
        """The columns that say how it was scored: of a batch, all messages have the same."""
        get = given.get
        values = (get("model_run_id"), get("model_name"), get("model_version"), get("batch_id"), get("scored_at"))
        known = self._scorings.get(values)
        if known is None:
            known = _scoring(dict(zip(_SCORING, values, strict=True)))
            if len(self._scorings) > _KEPT:
                self._scorings.clear()
            if isinstance(known, bytes) and len(known) <= 5 * _KEPT_BYTES:
                self._scorings[values] = known
        return known

    def _probability(self, given: bytes | None) -> bytes | Refusal:
        known = self._probabilities.get(given)
        if known is None:
            known = _probability(given)
            if len(self._probabilities) > _KEPT:
                self._probabilities.clear()
            if isinstance(known, bytes):
                self._probabilities[given] = known
        return known

    def _repeated(self, value: bytes) -> bytes:
        """As `text_cell`, of a column with few values."""
        known = self._texts.get(value)
        if known is None:
            known = text_cell(value)
            if len(self._texts) > _KEPT:
                self._texts.clear()
            if len(value) <= _KEPT_BYTES:
                self._texts[value] = known
        return known


def _scoring(given: Mapping[str, bytes | None]) -> bytes | Refusal:
    columns = []
    for name, value in given.items():
        needed = not name.startswith("model_") or name == "model_run_id"
        if not value:
            if needed:
                return Refusal(f"no_{name}", f"its header {name} is missing")
            columns.append(NULL)
            continue
        try:
            text = value.decode()
            if name == "scored_at":
                columns.append(utc(datetime.fromisoformat(text)).encode())
                continue
        except (ValueError, OverflowError):
            kind = "a time" if name == "scored_at" else "UTF-8 text"
            return Refusal(f"bad_{name}", f"its header {name} is not {kind}")
        if "\0" in text:
            return Refusal(f"bad_{name}", f"its header {name} holds a NUL character")
        columns.append(escaped(value))
    return b"\t".join(columns)


def _probability(given: bytes | None) -> bytes | Refusal:
    if given is None:
        return NULL
    try:
        number = float(given)
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
