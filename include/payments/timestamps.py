"""Convert `unix_time` and `current_time` to times by one rule, which models, the ledger and the producer share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal, InvalidOperation

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# For numbers below each limit, the microseconds in their unit. The limit is the year 5138 in that unit; the last limit
# is the largest 64-bit integer, which is the year 2262 in nanoseconds.
_UNITS = (
    (10**11, Decimal(1_000_000)),
    (10**14, Decimal(1_000)),
    (10**17, Decimal(1)),
    (2**63, Decimal("0.001")),
)


def parse_unix_time(value: object) -> datetime | None:
    """Return the time in UTC that a JSON number, or a text that is a number, means; None if it is not a time.

    Its magnitude determines whether it counts seconds, milliseconds, microseconds or nanoseconds since 1970.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        # Decimal also reads 1_000, and digits of all scripts.
        return None
    try:
        number = Decimal(value if type(value) is int else str(value))
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    for limit, microseconds in _UNITS:
        # copy_abs() does not round, and does not overflow.
        if number.copy_abs() < limit:
            return _since_epoch(int((number * microseconds).to_integral_value(ROUND_FLOOR)))
    return None


def date_time_text(time: datetime) -> str:
    """Return a time in UTC as `trans_date_trans_time`."""
    return time.replace(tzinfo=None).isoformat(" ", "seconds")


def unix_time(time: datetime) -> int:
    """Return a time in UTC as `unix_time`: milliseconds since 1970."""
    return (time - EPOCH) // timedelta(milliseconds=1)


def _since_epoch(microseconds: int) -> datetime | None:
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        # Before the year 1.
        return None
