"""Build the mail of a batch's fraud report from facts about the batch and its fraudulent payments."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from include.errors import ReportError
from include.report import csv_attachment, render
from include.report.fraud import Fraud, Value, amount, columns

SUBJECT = "Security alert - Fraud detected"
ATTACHMENT = "fraud_detection_report.csv"
TOP = 10
SHOWN_COLUMNS = ("trans_date_trans_time", "cc_num", "merchant", "category", "amt", "trans_num")

# Mail servers usually accept messages of 25 MB. Base64 makes the attachment 37 % longer: 15 MiB become 21.5 MB.
MAX_ATTACHMENT_BYTES = 15 * 1024 * 1024


@dataclass(frozen=True)
class ReportFacts:
    """Facts about a batch that its report shows besides the fraudulent payments.

    `ranges` are the committed offsets: (topic, partition, start, end), without `end`. `run_id` is Airflow's,
    `model_run_id` MLflow's.
    """

    batch_id: str
    run_id: str
    run_url: str
    model_label: str
    model_run_id: str
    model_url: str
    ranges: tuple[tuple[str, int, int, int], ...]
    scored: int
    frauds: int
    dead_letters: int
    scored_at: datetime
    output_topic: str
    group: str = "fraud_scoring"


@dataclass(frozen=True)
class ReportMail:
    """A mail to send. `csv` is its attachment, `left_out` the number of frauds that did not fit into it."""

    subject: str
    html: str
    csv: bytes
    message_id: str
    left_out: int


@dataclass(frozen=True)
class PendingReport:
    """A report that no mail server has accepted yet. `frauds` may be iterated more than once."""

    key: str
    facts: ReportFacts
    frauds: Iterable[Fraud]


@dataclass(frozen=True)
class ReportDelivery:
    """A mail server's acceptance of a report for these recipients. `seconds`: the time to build and send it."""

    message_id: str
    recipients: tuple[str, ...]
    at: datetime
    seconds: float


class ReportQueue(Protocol):
    """A queue of reports that no mail server has accepted yet."""

    def pending_reports(self) -> Iterable[PendingReport]:
        """Yield the reports that no mail server has accepted yet, oldest first."""

    def unreadable(self) -> Mapping[str, str]:
        """Return the batches whose reports cannot be read, with the reason."""

    def begin_report(self, report: PendingReport) -> bool:
        """Record that the report is about to be mailed. Return False if it must not be, because of another attempt."""

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        """Record that a mail server has accepted the report."""


@dataclass(frozen=True)
class _Sums:
    count: int
    total: Decimal
    largest: Decimal | None
    without_amount: int


def build_mail(
    facts: ReportFacts, frauds: Iterable[Fraud], *, mask: bool, max_attachment_bytes: int = MAX_ATTACHMENT_BYTES
) -> ReportMail:
    """Build the mail in one pass over `frauds`; only those that may fit into the attachment are held in memory.

    Raise ReportError if the number of frauds differs from `facts`, or a payment's record cannot be read.
    """
    sums, most_probable = _sum_and_select(frauds, max_attachment_bytes)
    if sums.count != facts.frauds:
        raise ReportError(
            f"batch {facts.batch_id}: {facts.frauds} frauds were counted, but the staged files hold {sums.count}"
        )
    csv, attached = csv_attachment.write(most_probable, mask=mask, max_bytes=max_attachment_bytes)
    left_out = sums.count - attached
    html = render.html(
        "report.html.j2",
        facts=facts,
        sums=sums,
        top=[_table_row(fraud, mask=mask) for fraud in most_probable[:TOP]],
        attached=attached,
        left_out=left_out,
        masked=mask,
        attachment=ATTACHMENT,
    )
    payments = "payment" if facts.frauds == 1 else "payments"
    subject = f"{SUBJECT}: {facts.frauds} {payments}, batch {facts.batch_id}"
    return ReportMail(subject, html, csv, message_id(facts), left_out)


def message_id(facts: ReportFacts) -> str:
    """Return the mail's Message-ID: the same for each copy of a batch's report, so that mail programs show it once.

    Another batch of the same offsets has another id: they were scored again on purpose, or are those of a new topic.
    """
    ranges = (f"{topic}/{partition}/{start}-{end}" for topic, partition, start, end in sorted(facts.ranges))
    text = "\n".join([facts.group, facts.batch_id, *ranges])
    return f"<fraud-report.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"


def _sum_and_select(frauds: Iterable[Fraud], max_bytes: int) -> tuple[_Sums, list[Fraud]]:
    """Return sums over all payments, and the payments with the highest probability, in descending order.

    The records of these payments have about twice `max_bytes` at most, so that they fill the attachment: a row of it is
    rarely shorter than half of its record, which repeats every column's name.
    """
    count, without_amount, size = 0, 0, 0
    total, largest = Decimal(0), None
    # The least probable payment is first; of equal ones, the newest.
    heap: list[tuple[float, int, Fraud]] = []
    for fraud in frauds:
        count += 1
        value = amount(fraud)
        if value is None:
            without_amount += 1
        else:
            total += value
            largest = value if largest is None else max(largest, value)
        heapq.heappush(heap, (_sort_key(fraud), -count, fraud))
        size += len(fraud.record)
        while size > 2 * max_bytes and len(heap) > TOP:
            size -= len(heapq.heappop(heap)[2].record)
    most_probable = [fraud for _, _, fraud in sorted(heap, key=lambda entry: entry[:2], reverse=True)]
    return _Sums(count, total, largest, without_amount), most_probable


def _sort_key(fraud: Fraud) -> float:
    """Return the key to sort by: a payment without a probability comes last."""
    return -1.0 if fraud.probability is None or math.isnan(fraud.probability) else fraud.probability


def _table_row(fraud: Fraud, *, mask: bool) -> dict[str, Value | float]:
    values = columns(fraud, mask=mask)
    return {name: values.get(name) for name in SHOWN_COLUMNS} | {"probability": fraud.probability}
