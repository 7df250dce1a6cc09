"""The simulator as a source: its payments at a chosen rate, at the real time or on a calendar of their own."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from itertools import islice

import msgspec

from include.payments.columns import COLUMNS, PREDICTION
from include.producer.message import CARD, PAYMENT_COLUMNS, TIME, UNIX_TIME, Message, now_ms, split_value, time_text
from include.producer.pace import paced
from include.producer.simulator import FIRST_DAY, Row, Simulator

_CARD = COLUMNS.index(CARD)
_TIME = COLUMNS.index(TIME)
_UNIX_TIME = COLUMNS.index(UNIX_TIME)
_FRAUD = COLUMNS.index(PREDICTION)
_UNPACED_RATE = 1_000.0


class SimulatedPayments:
    """With `start` the payments keep their simulated times, without it they carry the time at which they are sent."""

    def __init__(
        self,
        *,
        rate: float,
        seed: int,
        fraud_share: float,
        cards: int,
        count: int | None = None,
        start: datetime.datetime | None = None,
        per_day: float = 20_000,
    ) -> None:
        self._rate = rate
        self._count = count
        self._live = start is None
        if start is None:
            # Simulated time then passes as fast as real time, so bursts take the minutes they should. It begins on a
            # fixed day: the same seed gives the same payments, whenever they are sent.
            per_day = (rate or _UNPACED_RATE) * 86_400
        self._simulator = Simulator(
            seed,
            fraud_share,
            cards,
            start or FIRST_DAY,
            per_day=per_day,
            rhythm=not self._live,
        )
        self._frauds = 0
        self._clock = ""

    def batches(self, stop: threading.Event) -> Iterator[list[Message]]:
        number = 0
        for rows in paced(islice(self._simulator.rows(), self._count), self._rate, stop):
            if self._live and rows:
                rows = _stamped(rows)
            yield [_message(number + place, row) for place, row in enumerate(rows)]
            number += len(rows)
            self._frauds += sum(row[_FRAUD] for row in rows)
            if rows:
                self._clock = rows[-1][_TIME]

    def info(self) -> str:
        clock = "" if self._live or not self._clock else f", simulated time {self._clock}"
        return f"{self._frauds:,} simulated as fraud{clock}"


def _stamped(rows: list[Row]) -> list[Row]:
    # Every payment of one list is sent at one moment.
    now = now_ms()
    text = time_text(now)
    return [(*row[:_TIME], text, *row[_TIME + 1 : _UNIX_TIME], now, *row[_UNIX_TIME + 1 :]) for row in rows]


def _message(number: int, row: Row) -> Message:
    return Message(b"%d" % row[_CARD], split_value(PAYMENT_COLUMNS, b"%d" % number, msgspec.json.encode(row)))
