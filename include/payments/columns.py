"""Name the columns of a payment, in the order in which producers send them."""

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

# Without cc_num and zip: as numbers they would lose digits or leading zeros.
NUMBERS = ("amt", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long", "is_fraud")
# Columns that are quantities.
MEASURED = ("amt", "lat", "long", "city_pop", "merch_lat", "merch_long")
PREDICTION = "is_fraud"
FRAUD_CONFIRMED = "fraud_confirmed"
