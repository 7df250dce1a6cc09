"""Read a fraudulent payment's published record, with every value as exact text."""

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
    """A fraudulent payment.

    `source` is topic/partition/offset, `row` the payment's index in that message. `record` is the published JSON
    object, with its columns in their original order.
    """

    source: str
    row: int
    probability: float | None
    record: bytes


class Number(str):
    """A JSON number with all its digits: a float would round a card number of 19 digits."""

    __slots__ = ()


Value = str | bool | None


def columns(fraud: Fraud, *, mask: bool) -> dict[str, Value]:
    """Return the payment's columns: numbers as `Number`, nested values as JSON text, the card number masked if `mask`.

    Raise ReportError if the record is not a JSON object.
    """
    try:
        record = json.loads(fraud.record, parse_int=Number, parse_float=Number, parse_constant=Number)
        values = {name: _value(value) for name, value in record.items()}
    except (ValueError, AttributeError, RecursionError):
        raise _invalid_record(fraud) from None
    card = values.get(CARD_COLUMN)
    if mask and card is not None:
        values[CARD_COLUMN] = mask_card(str(card))
    return values


def amount(fraud: Fraud) -> Decimal | None:
    """Return the payment's amount, or None if it has none that is a number below 10^30.

    Raise ReportError as `columns` does.
    """
    try:
        text = bytes(_AMOUNT.decode(fraud.record).amt).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _invalid_record(fraud) from None
    try:
        number = Decimal(text.strip('" ')) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    # 1E+400000 is finite too, and would be printed with 400,000 digits.
    return number if number is not None and number.is_finite() and abs(number.adjusted()) < 30 else None


class _Amount(msgspec.Struct, gc=False):
    """Decode one column and skip the others: amounts are summed over all payments, attached or not."""

    amt: msgspec.Raw = msgspec.Raw(b"null")


_AMOUNT = msgspec.json.Decoder(_Amount)


def _value(value: object) -> Value:
    if value is None or isinstance(value, str | bool):
        return value
    return json.dumps(value, ensure_ascii=False)


def _invalid_record(fraud: Fraud) -> ReportError:
    """Return the error to raise without its cause, whose text would quote the payment."""
    return ReportError(f"the record of payment {fraud.source} row {fraud.row} is not a JSON object")
