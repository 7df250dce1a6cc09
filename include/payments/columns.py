"""The columns of a payment as today's producers send them, in their order."""

from __future__ import annotations

COLUMNS: tuple[str, ...] = (
    "trans_date_trans_time",
    "cc_num",
    "merchant",
    "category",
    "amt",
    "first",
    "last",
    "gender",
    "street",
    "city",
    "state",
    "zip",
    "lat",
    "long",
    "city_pop",
    "job",
    "dob",
    "trans_num",
    "unix_time",
    "merch_lat",
    "merch_long",
    "is_fraud",
)

# cc_num and zip are texts of digits: as numbers they would lose digits, and leading zeros.
NUMBERS = ("amt", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long", "is_fraud")
MEASURED = ("amt", "lat", "long", "city_pop", "merch_lat", "merch_long")
PREDICTION = "is_fraud"
CONFIRMED = "fraud_confirmed"
