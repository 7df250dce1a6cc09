"""Replay a CSV file of payments at a chosen rate, with every value as it is written in the file."""

from __future__ import annotations

import csv
import datetime
import logging
import re
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from include.errors import ProducerError
from include.payments.columns import COLUMNS, NUMBERS
from include.payments.csv_text import csv_text
from include.payments.timestamps import date_time_text, unix_time
from include.producer.message import CARD, PAYMENT_COLUMNS, TIME, UNIX_TIME, PaymentMessage, json_list, split_value
from include.producer.pace import pace

_log = logging.getLogger(__name__)

_NUMERIC = frozenset(("cc_num", "zip", *NUMBERS))
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INDEX_NAMES = ("", "Unnamed: 0")
_CARD = COLUMNS.index(CARD)
_TIME = COLUMNS.index(TIME)
_UNIX_TIME = COLUMNS.index(UNIX_TIME)


class _Line(NamedTuple):
    number: int
    fields: list[str]


class CsvPayments:
    """The payments of a CSV file, with any order of its columns.

    With `loop` the file begins again at its end. With `now` payments have the time at which they are sent. The
    constructor raises ProducerError if the file cannot be read or lacks columns, and names these.
    """

    def __init__(
        self, path: Path, *, rate: float, count: int | None = None, loop: bool = False, now: bool = False
    ) -> None:
        self._path = path
        self._rate = rate
        self._count = count
        self._loop = loop
        self._now = now
        self._skipped = 0
        self._passes = 0
        # Read the header now, so that an unusable file is an error before a connection to Kafka.
        next(self._lines(), None)
        self._skipped = 0

    def message_lists(self, stop: threading.Event) -> Iterator[list[PaymentMessage]]:
        """Yield the messages that are due. Raise ProducerError if the file has no rows or becomes unreadable."""
        for lines in pace(islice(self._all_lines(), self._count), self._rate, stop):
            yield [_message(line, datetime.datetime.now(datetime.UTC) if self._now else None) for line in lines]

    def status(self) -> str:
        """Return the file's name, the number of the pass with `loop`, and how many lines were unusable."""
        passes = f", pass {self._passes:,}" if self._loop else ""
        return f"{self._path.name}{passes}, {self._skipped:,} unusable lines"

    def _all_lines(self) -> Iterator[_Line]:
        while True:
            self._passes += 1
            is_empty = True
            for line in self._lines():
                is_empty = False
                yield line
            if is_empty:
                raise ProducerError(f"{self._path} holds no payments: add rows below its header")
            if not self._loop:
                return

    def _lines(self) -> Iterator[_Line]:
        try:
            with csv_text(self._path, ProducerError) as text:
                yield from self._payments(csv.reader(text))
        except UnicodeDecodeError as error:
            raise ProducerError(f"{self._path} is not UTF-8 text: save it as CSV in UTF-8") from error

    def _payments(self, reader: Iterator[list[str]]) -> Iterator[_Line]:
        try:
            names = next(reader, [])
            column_indices = self._column_indices(names)
            has_index = names[0] in _INDEX_NAMES
            for number, fields in enumerate(reader):
                if len(fields) == len(names):
                    index = fields[0] if has_index else ""
                    values = [fields[column] for column in column_indices]
                    yield _Line(int(index) if index.isdecimal() else number, values)
                elif fields:
                    self._skipped += 1
                    _log.warning(
                        "%s, row %s: %s fields instead of %s: the row is not sent",
                        self._path,
                        number + 1,
                        len(fields),
                        len(names),
                    )
        except csv.Error as error:
            raise ProducerError(f"{self._path} is not a CSV file: {error}") from error

    def _column_indices(self, names: list[str]) -> list[int]:
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ProducerError(
                f"{self._path} lacks the columns {', '.join(missing)}: add them, a payment has {len(COLUMNS)}"
            )
        return [names.index(name) for name in COLUMNS]


def _message(line: _Line, now: datetime.datetime | None) -> PaymentMessage:
    fields = line.fields
    if now is not None:
        fields = [*fields]
        fields[_TIME], fields[_UNIX_TIME] = date_time_text(now), str(unix_time(now))
    values = json_list(_json(name, field) for name, field in zip(COLUMNS, fields, strict=True))
    # Not through int(), which would remove leading zeros.
    key = fields[_CARD].encode() or None
    return PaymentMessage(key, split_value(PAYMENT_COLUMNS, b"%d" % line.number, values))


def _json(name: str, field: str) -> bytes:
    if not field:
        return b"null"
    if name in _NUMERIC and _JSON_NUMBER.fullmatch(field):
        return field.encode()
    return msgspec.json.encode(field)
