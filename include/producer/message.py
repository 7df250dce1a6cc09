"""Encode a payment as a message of the input topic: JSON in pandas' "split" form, with the card number as key."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from include.payments.columns import COLUMNS

TIME = "trans_date_trans_time"
UNIX_TIME = "unix_time"
CARD = "cc_num"

PAYMENT_COLUMNS = msgspec.json.encode(COLUMNS)


class PaymentMessage(NamedTuple):
    """A message with one payment; `key` is the card number as text, None if the payment has none."""

    key: bytes | None
    value: bytes


class PaymentStream(Protocol):
    """A source of payments: the simulator, a CSV file or an API."""

    def message_lists(self, stop: threading.Event) -> Iterator[list[PaymentMessage]]:
        """Yield the messages that are due, until the source ends or `stop` is set.

        A list, empty if nothing is due, comes at least once a second.
        """

    def status(self) -> str:
        """Return what the progress line says about this source."""


def split_value(columns: bytes, index: bytes, values: bytes) -> bytes:
    """Return a message's value for one payment: all three arguments are JSON, `columns` and `values` lists."""
    return b'{"columns":' + columns + b',"index":[' + index + b'],"data":[' + values + b"]}"


def json_list(values: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Return the JSON list of values that are JSON."""
    return b"[" + b",".join(values) + b"]"
