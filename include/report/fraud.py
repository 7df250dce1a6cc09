"""One fraudulent payment as the report reads it: the published record, with every value as exact text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import msgspec

from include.errors import ReportError
from include.payments.masking import mask_card

CARD_COLUMN = "cc_num"


@dataclass(frozen=True)
class Fraud:
    """`record` is the payment as published: one JSON object, its columns in the order they came."""

    source: str
    row: int
    probability: float | None
    record: bytes


class Number(str):
    """A JSON number, digit for digit: a float would round a card number of 19 digits."""

    __slots__ = ()


Value = str | bool | None


def columns(fraud: Fraud, *, mask: bool) -> dict[str, Value]:
    """The payment's columns. Numbers are `Number`, nested values their JSON text, the card number masked if asked."""
    try:
        record = json.loads(fraud.record, parse_int=Number, parse_float=Number, parse_constant=Number)
        values = {name: _value(value) for name, value in record.items()}
    except (ValueError, AttributeError, RecursionError):
        raise _broken(fraud) from None
    card = values.get(CARD_COLUMN)
    if mask and card is not None:
        values[CARD_COLUMN] = mask_card(str(card))
    return values


def amount(fraud: Fraud) -> Decimal | None:
    """The payment's amount, or None where it has none that can be read."""
    try:
        text = bytes(_AMOUNT.decode(fraud.record).amt).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _broken(fraud) from None
    try:
        number = Decimal(text.strip('" ')) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    # 1E+400000 is finite too, and would print as that many digits.
    return number if number is not None and number.is_finite() and abs(number.adjusted()) < 30 else None


class _Amount(msgspec.Struct, gc=False):
    """Reads one column and skips the others: amounts are summed over all payments, attached or not."""

    amt: msgspec.Raw = msgspec.Raw(b"null")


_AMOUNT = msgspec.json.Decoder(_Amount)


def _value(value: object) -> Value:
    if value is None or isinstance(value, str | bool):
        return value
    return json.dumps(value, ensure_ascii=False)


def _broken(fraud: Fraud) -> ReportError:
    """To be raised without its cause, whose text would quote the payment."""
    return ReportError(f"the record of payment {fraud.source} row {fraud.row} is not a JSON object")
