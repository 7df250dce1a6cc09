"""The moment that a `unix_time` or `current_time` means, by one rule for models, the ledger and the producer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal, InvalidOperation

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A number below the limit is in this many microseconds. Each limit is the year 5138 in its unit; the last is the
# largest 64-bit integer, which is the year 2262 in nanoseconds.
_UNITS = (
    (10**11, Decimal(1_000_000)),
    (10**14, Decimal(1_000)),
    (10**17, Decimal(1)),
    (2**63, Decimal("0.001")),
)


def parse_unix_time(value: object) -> datetime | None:
    """Return the UTC time of a JSON number, or of a text that is one; None where it is no time.

    The magnitude says whether it counts seconds, milliseconds, microseconds or nanoseconds since 1970.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        # Decimal reads 1_000 and the digits of every script.
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


def date_time_text(moment: datetime) -> str:
    """Return the moment as `trans_date_trans_time`."""
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def unix_time(moment: datetime) -> int:
    """Return the moment as `unix_time`: milliseconds since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _since_epoch(microseconds: int) -> datetime | None:
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        # Before the year 1.
        return None
