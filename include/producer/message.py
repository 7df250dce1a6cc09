"""A payment as the input topic holds it: JSON in pandas' "split" form, the card number as the message's key."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from include.payments.columns import COLUMNS

TIME = "trans_date_trans_time"
UNIX_TIME = "unix_time"
CARD = "cc_num"

PAYMENT_COLUMNS = msgspec.json.encode(COLUMNS)


class Message(NamedTuple):
    key: bytes | None
    value: bytes


class PaymentStream(Protocol):
    def batches(self, stop: threading.Event) -> Iterator[list[Message]]:
        """Until the source or `stop` ends it. At least once a second a list, an empty one where nothing is due."""

    def info(self) -> str:
        """What the progress line says of this source."""


def split_value(columns: bytes, index: bytes, values: bytes) -> bytes:
    """One payment's message from JSON: the list of column names, the index and the list of values."""
    return b'{"columns":' + columns + b',"index":[' + index + b'],"data":[' + values + b"]}"


def json_list(values: Iterable[bytes | msgspec.Raw]) -> bytes:
    return b"[" + b",".join(values) + b"]"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def time_text(milliseconds: int) -> str:
    """`trans_date_trans_time` of a `unix_time`. Raises ValueError or OverflowError for what no calendar holds."""
    return f"{datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.UTC):%Y-%m-%d %H:%M:%S}"
