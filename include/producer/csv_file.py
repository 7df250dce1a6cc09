"""A CSV file of payments as a source, replayed at a chosen rate, every value as it is written there."""

from __future__ import annotations

import csv
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
from include.producer.message import (
    CARD,
    PAYMENT_COLUMNS,
    TIME,
    UNIX_TIME,
    Message,
    json_list,
    now_ms,
    split_value,
    time_text,
)
from include.producer.pace import paced

_log = logging.getLogger(__name__)

_NUMERIC = frozenset(("cc_num", "zip", *NUMBERS))
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INDEX_NAMES = ("", "Unnamed: 0")
_CARD = COLUMNS.index(CARD)
_TIME = COLUMNS.index(TIME)
_UNIX_TIME = COLUMNS.index(UNIX_TIME)


class _Line(NamedTuple):
    number: str
    fields: list[str]


class CsvPayments:
    """Raises ProducerError, naming them, where the file cannot be read or lacks columns."""

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
        next(self._lines(), None)
        self._skipped = 0

    def batches(self, stop: threading.Event) -> Iterator[list[Message]]:
        for lines in paced(islice(self._passed(), self._count), self._rate, stop):
            yield [_message(line, now_ms() if self._now else None) for line in lines]

    def info(self) -> str:
        passes = f", pass {self._passes:,}" if self._loop else ""
        return f"{self._path.name}{passes}, {self._skipped:,} unusable lines"

    def _passed(self) -> Iterator[_Line]:
        while True:
            self._passes += 1
            empty = True
            for line in self._lines():
                empty = False
                yield line
            if empty:
                raise ProducerError(f"{self._path} holds no payments")
            if not self._loop:
                return

    def _lines(self) -> Iterator[_Line]:
        try:
            with csv_text(self._path, ProducerError) as text:
                yield from self._payments(csv.reader(text))
        except UnicodeDecodeError as error:
            raise ProducerError(f"{self._path} is not UTF-8 text") from error

    def _payments(self, reader: Iterator[list[str]]) -> Iterator[_Line]:
        try:
            names = next(reader, [])
            places = self._places(names)
            index_place = 0 if names[0] in _INDEX_NAMES else None
            for number, fields in enumerate(reader):
                if len(fields) == len(names):
                    index = fields[index_place] if index_place is not None else ""
                    yield _Line(index if index.isdecimal() else str(number), [fields[place] for place in places])
                elif fields:
                    self._skipped += 1
                    _log.warning(
                        "%s, row %s: %s fields instead of %s; not sent", self._path, number + 1, len(fields), len(names)
                    )
        except csv.Error as error:
            raise ProducerError(f"{self._path} is not a CSV file: {error}") from error

    def _places(self, names: list[str]) -> list[int]:
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ProducerError(f"{self._path} lacks the columns {', '.join(missing)}: a payment has {len(COLUMNS)}")
        return [names.index(name) for name in COLUMNS]


def _message(line: _Line, now: int | None) -> Message:
    fields = line.fields
    if now is not None:
        fields = [*fields]
        fields[_TIME], fields[_UNIX_TIME] = time_text(now), str(now)
    values = json_list(_json(name, field) for name, field in zip(COLUMNS, fields, strict=True))
    # Not through int(): a card number with leading zeros would lose them.
    key = fields[_CARD].encode() or None
    return Message(key, split_value(PAYMENT_COLUMNS, msgspec.json.encode(int(line.number)), values))


def _json(name: str, field: str) -> bytes:
    if not field:
        return b"null"
    if name in _NUMERIC and _JSON_NUMBER.fullmatch(field):
        return field.encode()
    return msgspec.json.encode(field)
