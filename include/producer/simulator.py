"""Simulate card payments, genuine ones and bursts of fraud on stolen cards. The same seed gives the same payments."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from faker import Faker

from include.errors import SettingError
from include.payments.columns import COLUMNS
from include.producer.cards import make_cards
from include.producer.spending import (
    CATEGORIES,
    FRAUD,
    FRAUD_HOURS,
    GENUINE,
    GENUINE_HOURS,
    MERCHANTS_PER_CATEGORY,
    Habits,
    make_merchants,
)

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[Any, ...]
"""One payment's values, in the order of COLUMNS."""

FIRST_DAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
HOUR_MS = 3_600_000
CHUNK_PAYMENTS = 4_000

BURST_SIZES = np.array([1, 2, 3, 4, 5, 6, 7, 8])
BURST_SHARES = np.array([0.14, 0.15, 0.17, 0.17, 0.14, 0.11, 0.07, 0.05])
BURST_MEAN = float(BURST_SIZES @ BURST_SHARES)
MAX_BURST_MS = HOUR_MS
FAR_BURST_SHARE = 0.7
"""The share of bursts that happen far from the cardholder's home."""
DISGUISED_FRAUD_SHARE = 0.06
"""The share of frauds with the amount and category of a genuine payment, by which no model can find them."""
FRAUD_LIKE_SHARE = 0.002
"""The share of genuine payments with the amount and category of a fraud, such as a new refrigerator."""
TRAVEL_SHARE = 0.015
"""The share of genuine payments made far from home."""

_EVENT = np.dtype(
    [
        ("time", "i8"),
        ("card", "i4"),
        ("category", "i2"),
        ("amount", "f8"),
        ("lat", "f8"),
        ("long", "f8"),
        ("fraud", "i1"),
    ]
)


class Simulator:
    """An endless stream of payments in the order of their times, from `start` on, on average `per_day` a day.

    `start` is in UTC unless it has a time zone. With `rhythm` days have busy and quiet hours, and most frauds happen at
    night; without it all hours are alike, for payments that get the real time when they are sent.

    Raise SettingError if a parameter is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        fraud_share: float = 0.01,
        cards: int = 1_000,
        start: datetime.datetime = FIRST_DAY,
        *,
        per_day: float = 20_000,
        rhythm: bool = True,
    ) -> None:
        if not 0 <= fraud_share <= 1:
            raise SettingError(f"fraud share {fraud_share}: give a number from 0 to 1")
        if cards < 1 or per_day <= 0:
            raise SettingError(f"{cards} cards, {per_day:g} payments a day: give at least one card and one payment")
        if start.tzinfo is None:
            start = start.replace(tzinfo=datetime.UTC)
        self._random = np.random.default_rng(seed)
        faker = Faker("en_US")
        faker.seed_instance(seed)
        self._cards = make_cards(cards, faker, self._random)
        self._activity = np.cumsum(self._cards.activity)
        self._merchants = make_merchants(faker)
        self._categories = np.array(list(CATEGORIES), dtype=object)
        self._start = round(start.timestamp() * 1000)
        self._fraud_share = fraud_share
        self._per_day = per_day
        flat = np.full(24, 1 / 24)
        self._genuine_hours = GENUINE_HOURS / GENUINE_HOURS.sum() if rhythm else flat
        self._fraud_hours = FRAUD_HOURS / FRAUD_HOURS.sum() if rhythm else flat
        self._rows = itertools.chain.from_iterable(self._chunks())

    def rows(self) -> Iterator[Row]:
        """Return the payments that no earlier call has taken."""
        return self._rows

    def payments(self, count: int) -> list[Row]:
        """Return the next `count` payments."""
        return list(itertools.islice(self._rows, count))

    def frame(self, payments: int | None = None, *, days: float | None = None) -> pd.DataFrame:
        """Return the next `payments` payments, or all remaining ones before `days` days since the start."""
        if (payments is None) == (days is None):
            raise ValueError("give either payments or days")
        rows = (
            self.payments(payments)
            if payments is not None
            else self._until(self._start + round(24 * HOUR_MS * (days or 0)))
        )
        import pandas as pd  # Sending payments does not need it, and it takes long to import.

        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _until(self, end: int) -> list[Row]:
        time_index = COLUMNS.index("unix_time")
        rows = []
        for row in self._rows:
            if row[time_index] >= end:
                self._rows = itertools.chain((row,), self._rows)
                break
            rows.append(row)
        return rows

    def _chunks(self) -> Iterator[list[Row]]:
        # Bursts that began before the start continue after it, so that the fraud share holds from the first payment on.
        pending = self._bursts(self._start - MAX_BURST_MS, self._start)
        pending = pending[pending["time"] >= self._start]
        for begin, end in self._windows():
            pending = np.concatenate([pending, self._bursts(begin, end)])
            is_due = pending["time"] < end
            events = np.concatenate([self._genuine(begin, end), pending[is_due]])
            pending = pending[~is_due]
            yield self._as_rows(events[np.argsort(events["time"], kind="stable")])

    def _windows(self) -> Iterator[tuple[int, int]]:
        """Yield `[begin, end)` of pieces of an hour, each with about CHUNK_PAYMENTS payments or fewer."""
        begin = self._start
        while True:
            hour_end = (begin // HOUR_MS + 1) * HOUR_MS
            expected = self._expected(self._genuine_hours, begin, hour_end)
            pieces = np.linspace(begin, hour_end, max(1, math.ceil(expected / CHUNK_PAYMENTS)) + 1).astype(int).tolist()
            yield from itertools.pairwise(pieces)
            begin = hour_end

    def _expected(self, hours: np.ndarray, begin: int, end: int) -> float:
        return float(self._per_day * hours[begin // HOUR_MS % 24] * (end - begin) / HOUR_MS)

    def _genuine(self, begin: int, end: int) -> np.ndarray:
        count = self._random.poisson((1 - self._fraud_share) * self._expected(self._genuine_hours, begin, end))
        events = np.zeros(count, _EVENT)
        events["time"] = self._random.integers(begin, end, count)
        events["card"] = np.searchsorted(self._activity, self._random.random(count) * self._activity[-1], side="right")
        self._spend(events, GENUINE, FRAUD, FRAUD_LIKE_SHARE)
        self._locate(events, far=self._random.random(count) < TRAVEL_SHARE, group=np.arange(count))
        return events

    def _bursts(self, begin: int, end: int) -> np.ndarray:
        """Return the frauds of bursts that begin in `[begin, end)`. Later frauds of a burst may be after `end`."""
        expected = self._fraud_share * self._expected(self._fraud_hours, begin, end) / BURST_MEAN
        bursts = self._random.poisson(expected)
        sizes = self._random.choice(BURST_SIZES, bursts, p=BURST_SHARES)
        group = np.repeat(np.arange(bursts), sizes)
        events = np.zeros(len(group), _EVENT)
        gaps = np.clip(self._random.lognormal(math.log(90_000), 0.8, len(group)), 15_000, 480_000)
        elapsed = np.cumsum(gaps)
        first = np.cumsum(sizes) - sizes
        events["time"] = self._random.integers(begin, end, bursts)[group] + (elapsed - elapsed[first][group]).astype(
            int
        )
        events["card"] = self._random.integers(0, len(self._activity), bursts)[group]
        events["fraud"] = 1
        self._spend(events, FRAUD, GENUINE, DISGUISED_FRAUD_SHARE)
        self._locate(events, far=(self._random.random(bursts) < FAR_BURST_SHARE)[group], group=group)
        return events

    def _spend(self, events: np.ndarray, habits: Habits, others: Habits, share: float) -> None:
        """Set categories and amounts by `habits`, and for a share of the events by the habits of the other kind."""
        categories = habits.categories(len(events), self._random)
        amounts = habits.amounts(categories, self._random)
        atypical = np.flatnonzero(self._random.random(len(events)) < share)
        categories[atypical] = others.categories(len(atypical), self._random)
        amounts[atypical] = others.amounts(categories[atypical], self._random)
        events["category"] = categories
        # Only genuine amounts depend on the cardholder.
        amounts = np.where(events["fraud"], amounts, amounts * self._cards.spending[events["card"]])
        events["amount"] = np.round(np.clip(amounts, 1, 25_000), 2)

    def _locate(self, events: np.ndarray, *, far: np.ndarray, group: np.ndarray) -> None:
        """Set coordinates near the cardholder's home, or far from it; events of one group are in one region."""
        count = len(events)
        groups = int(group[-1]) + 1 if count else 0
        distance = self._random.uniform(1.5, 9, groups)[group]
        angle = self._random.uniform(0, 2 * math.pi, groups)[group]
        for name, home, direction in (
            ("lat", self._cards.lat, np.sin(angle)),
            ("long", self._cards.long, np.cos(angle)),
        ):
            spread = self._random.normal(0, 0.35, count)
            events[name] = np.round(home[events["card"]] + spread + np.where(far, distance * direction, 0), 6)

    def _as_rows(self, events: np.ndarray) -> list[Row]:
        count = len(events)
        card = events["card"]
        merchant = events["category"] * np.int64(MERCHANTS_PER_CATEGORY) + self._random.integers(
            0, MERCHANTS_PER_CATEGORY, count
        )
        numbers = self._random.bytes(16 * count).hex()
        seconds = np.datetime_as_string(events["time"].astype("M8[ms]"), unit="s").tolist()
        columns = {name: values[card].tolist() for name, values in self._cards.columns.items()} | {
            "trans_date_trans_time": [text.replace("T", " ") for text in seconds],
            "merchant": self._merchants[merchant].tolist(),
            "category": self._categories[events["category"]].tolist(),
            "amt": events["amount"].tolist(),
            "trans_num": [numbers[i : i + 32] for i in range(0, 32 * count, 32)],
            "unix_time": events["time"].tolist(),
            "merch_lat": events["lat"].tolist(),
            "merch_long": events["long"].tolist(),
            "is_fraud": events["fraud"].tolist(),
        }
        return list(zip(*(columns[name] for name in COLUMNS), strict=True))
