"""Compares the mailbox with the output topic: each fraud must be in the only report of its batch."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from tests.support.topics import Arrived

# [start, end) by partition.
Window = dict[int, tuple[int, int]]
# Source and row.
Place = tuple[str, int]


@dataclass(frozen=True)
class MailedReport:
    batch: str
    message_id: str
    payments: tuple[Place, ...]


def check_mailed(frauds: Mapping[Place, str], mailed: list[MailedReport]) -> None:
    """Check that each fraud was reported once, in the only report of its batch."""
    assert len({one.message_id for one in mailed}) == len(mailed), "a report came twice"
    told = Counter(place for one in mailed for place in one.payments)
    due = Counter(frauds.keys())
    assert told == due, (
        list(due - told)[:5],
        list(told - due)[:5],
    )
    assert Counter(one.batch for one in mailed) == Counter(set(frauds.values())), (
        "not one report for each batch with frauds"
    )


def is_in(window: Window, place: tuple[str, object]) -> bool:
    _, partition, offset = place[0].split("/")
    start, end = window.get(int(partition), (0, 0))
    return start <= int(offset) < end


def place_of(arrived: Arrived) -> Place:
    return arrived.headers["source"], int(arrived.headers["row"])


def payment_of(arrived: Arrived) -> dict[str, Any]:
    """Its whole numbers as text: one of more than 4,300 digits makes no int."""
    (payment,) = json.loads(arrived.value or b"", parse_int=str)
    return dict(payment)


def is_fraud(arrived: Arrived) -> bool:
    return bool(payment_of(arrived)["is_fraud"] == "1")


def mailed_reports(message: EmailMessage) -> MailedReport:
    (attachment,) = message.iter_attachments()
    content = attachment.get_content()
    text = content.decode() if isinstance(content, bytes) else content
    header, *rows = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    source, row = header.index("source"), header.index("row")
    found = tuple((line[source], int(line[row])) for line in rows)
    return MailedReport(str(message["Subject"]).rpartition(" ")[2], str(message["Message-ID"]), found)
