"""Send simulated payments at a chosen rate, with the real time or with the times of a simulated calendar."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from itertools import islice

import msgspec

from include.payments.columns import COLUMNS, PREDICTION
from include.payments.timestamps import date_time_text, unix_time
from include.producer.message import CARD, PAYMENT_COLUMNS, TIME, UNIX_TIME, PaymentMessage, split_value
from include.producer.pace import pace
from include.producer.simulator import FIRST_DAY, Row, Simulator

_CARD = COLUMNS.index(CARD)
_TIME = COLUMNS.index(TIME)
_UNIX_TIME = COLUMNS.index(UNIX_TIME)
_FRAUD = COLUMNS.index(PREDICTION)
_UNPACED_RATE = 1_000.0


class SimulatedPayments:
    """The payments of a Simulator.

    With `start` they keep their simulated times; without it they have the time at which they are sent.
    """

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
            # Simulated time passes as fast as real time, so that bursts of fraud take some minutes. It begins on a
            # fixed day, so that the same seed gives the same payments on any day.
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

    def message_lists(self, stop: threading.Event) -> Iterator[list[PaymentMessage]]:
        """Yield the messages that are due."""
        number = 0
        for rows in pace(islice(self._simulator.rows(), self._count), self._rate, stop):
            if self._live and rows:
                rows = _with_current_time(rows)
            yield [_message(number, row) for number, row in enumerate(rows, number)]
            number += len(rows)
            self._frauds += sum(row[_FRAUD] for row in rows)
            if rows:
                self._clock = rows[-1][_TIME]

    def status(self) -> str:
        """Return how many payments were simulated as fraud, and the simulated time with `start`."""
        clock = "" if self._live or not self._clock else f", simulated time {self._clock}"
        return f"{self._frauds:,} simulated as fraud{clock}"


def _with_current_time(rows: list[Row]) -> list[Row]:
    now = datetime.datetime.now(datetime.UTC)
    text, number = date_time_text(now), unix_time(now)
    return [(*row[:_TIME], text, *row[_TIME + 1 : _UNIX_TIME], number, *row[_UNIX_TIME + 1 :]) for row in rows]


def _message(number: int, row: Row) -> PaymentMessage:
    return PaymentMessage(b"%d" % row[_CARD], split_value(PAYMENT_COLUMNS, b"%d" % number, msgspec.json.encode(row)))
