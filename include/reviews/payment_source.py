"""Parses and prints a payment's source: its position on the input topic.

The source distinguishes several payments with the same trans_num.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SOURCE_COLUMNS = ("source_topic", "source_partition", "source_offset", "source_row")
CONTENT_COLUMNS = ("cc_num", "amt", "paid_at", "merchant", "category")
"""Predictions with the same trans_num and the same values in these columns belong to one payment, which was sent or
scored again."""
_TEXT = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,10})/(\d{1,19})")
_ROW = re.compile(r"(\d{1,9})(?:[.,]0+)?")
# Characters to strip from a cell.
_STRIPPED = " \t'\"\xa0"


@dataclass(frozen=True)
class PaymentSource:
    """The topic, partition and offset of a payment's message.

    `row` is the payment's index in the message's `data`, None if unknown.
    """

    topic: str
    partition: int
    offset: int
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}" + ("" if self.row is None else f" row {self.row}")

    @classmethod
    def parse(cls, text: str, row: str = "") -> PaymentSource | None:
        """Return the source of a text of the form topic/partition/offset, like the header `source`, or None.

        A `row` that is not a number counts as unknown.
        """
        found = _TEXT.fullmatch(text.strip(_STRIPPED))
        if found is None or int(found[2]) >= 2**31 or int(found[3]) >= 2**63:
            return None
        index = _ROW.fullmatch(row.strip(_STRIPPED))
        return cls(found[1], int(found[2]), int(found[3]), int(index[1]) if index else None)
