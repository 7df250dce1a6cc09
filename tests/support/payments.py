"""Payments with names that occur nowhere else, so that leaks of them can be found."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass
from typing import Any

# The models of the system tests call a payment above this amount fraud (see tests/support/two_models.py).
GENUINE, FRAUD_FOR_LATEST, FRAUD_FOR_BOTH = 100.25, 700.5, 950.75


@dataclass(frozen=True)
class Payment:
    """`values` in the order of their columns."""

    values: dict[str, Any]

    @property
    def key(self) -> bytes:
        return str(self.values["cc_num"]).encode()

    @property
    def message(self) -> bytes:
        split = {"columns": list(self.values), "index": [0], "data": [list(self.values.values())]}
        return json.dumps(split).encode()

    @property
    def secrets(self) -> set[str]:
        """Return the values that must not be in logs or databases."""
        return {str(self.values[name]) for name in ("cc_num", "first", "last", "street")}

    def scored(self, prediction: int) -> dict[str, Any]:
        return self.values | {"is_fraud": prediction, "fraud_confirmed": None}


def payments(*amounts: float) -> list[Payment]:
    return [payment(amount) for amount in amounts]


def payment(amount: float, **changes: Any) -> Payment:
    word = "".join(random.choices(string.ascii_lowercase, k=10))
    card: int | str = random.randrange(4 * 10**18, 5 * 10**18)  # 19 digits, more than a float holds
    if amount == FRAUD_FOR_BOTH:
        card = str(card)
    values = {
        "trans_date_trans_time": "2026-03-04 15:56:25", "cc_num": card, "merchant": "fraud_McDermott, Osinski",
        "category": "home", "amt": amount, "first": f"Anna{word}", "last": f"Berg{word}", "gender": "F",
        "street": f"6881 {word} Suite", "city": "Higganum", "state": "CT", "zip": 6441, "lat": 41.4682,
        "long": -72.5751, "city_pop": 5438, "job": "Librarian, academic", "dob": "1964-11-17",
        "trans_num": random.randbytes(16).hex(), "unix_time": 1772639785000, "merch_lat": 41.581898,
        "merch_long": -73.130293, "is_fraud": 0,
    }  # fmt: skip
    return Payment({**values, **changes})
