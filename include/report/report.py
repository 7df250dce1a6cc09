"""The fraud report of one batch: facts and fraudulent payments in, one mail out."""

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

# Mail servers usually take 25 MB a message. Base64 lengthens the attachment by 37 %: 15 MiB becomes 21.5 MB.
MAX_ATTACHMENT_BYTES = 15 * 1024 * 1024


@dataclass(frozen=True)
class ReportFacts:
    """What is known of a batch besides its fraudulent payments.

    `ranges` are the committed ones: (topic, partition, start, end). `run_id` is Airflow's, `model_run_id` MLflow's.
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
    subject: str
    html: str
    csv: bytes
    message_id: str
    left_out: int


@dataclass(frozen=True)
class OwedReport:
    """A report that no mail server has accepted yet. `frauds` may be iterated more than once."""

    key: str
    facts: ReportFacts
    frauds: Iterable[Fraud]


@dataclass(frozen=True)
class ReportDelivery:
    """That a mail server has accepted a report for these recipients, and what it took to build and send it."""

    message_id: str
    recipients: tuple[str, ...]
    at: datetime
    seconds: float


class PendingReports(Protocol):
    """Where reports wait until a mail server has accepted them."""

    def owed(self) -> Iterable[OwedReport]: ...

    def unreadable(self) -> Mapping[str, str]: ...

    def begin_report(self, report: OwedReport) -> bool: ...

    def record_delivery(self, report: OwedReport, delivery: ReportDelivery) -> None: ...


@dataclass(frozen=True)
class _Sums:
    count: int
    total: Decimal
    largest: Decimal | None
    without_amount: int


def build(
    facts: ReportFacts, frauds: Iterable[Fraud], *, mask: bool, max_attachment_bytes: int = MAX_ATTACHMENT_BYTES
) -> ReportMail:
    """One pass over `frauds`, whatever their number: only what can fit into the attachment is held."""
    sums, held = _survey(facts, frauds, max_attachment_bytes)
    if sums.count != facts.frauds:
        raise ReportError(f"batch {facts.batch_id}: {facts.frauds} frauds were counted, but {sums.count} are staged")
    csv, attached = csv_attachment.write(held, mask=mask, max_bytes=max_attachment_bytes)
    left_out = sums.count - attached
    html = render.html(
        "report.html.j2",
        facts=facts,
        sums=sums,
        top=[_shown(fraud, mask=mask) for fraud in held[:TOP]],
        attached=attached,
        left_out=left_out,
        masked=mask,
        attachment=ATTACHMENT,
    )
    payments = "payment" if facts.frauds == 1 else "payments"
    subject = f"{SUBJECT}: {facts.frauds} {payments}, batch {facts.batch_id}"
    return ReportMail(subject, html, csv, message_id(facts), left_out)


def message_id(facts: ReportFacts) -> str:
    """The same batch gives the same id, so that a report sent twice is shown once. Another batch of the same offsets,
    which are scored again on purpose or are those of a topic made again, has a report that must be seen too.
    """
    ranges = (f"{topic}/{partition}/{start}-{end}" for topic, partition, start, end in sorted(facts.ranges))
    text = "\n".join([facts.group, facts.batch_id, *ranges])
    return f"<fraud-report.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"


def _survey(facts: ReportFacts, frauds: Iterable[Fraud], max_bytes: int) -> tuple[_Sums, list[Fraud]]:
    """Amounts over all payments, and the most probable ones, best first: at most about twice the attachment's bytes.

    A row of the attachment is hardly ever shorter than half of its record, which repeats every column's name.
    """
    count, without, size = 0, 0, 0
    total, largest = Decimal(0), None
    heap: list[tuple[float, int, Fraud]] = []
    for fraud in frauds:
        count += 1
        value = amount(fraud)
        if value is None:
            without += 1
        else:
            total += value
            largest = value if largest is None else max(largest, value)
        heapq.heappush(heap, (_rank(fraud), -count, fraud))
        size += len(fraud.record)
        while size > 2 * max_bytes and len(heap) > TOP:
            size -= len(heapq.heappop(heap)[2].record)
    best = [fraud for _, _, fraud in sorted(heap, key=lambda entry: entry[:2], reverse=True)]
    return _Sums(count, total, largest, without), best


def _rank(fraud: Fraud) -> float:
    """A payment without a probability comes last."""
    return -1.0 if fraud.probability is None or math.isnan(fraud.probability) else fraud.probability


def _shown(fraud: Fraud, *, mask: bool) -> dict[str, Value | float]:
    values = columns(fraud, mask=mask)
    return {name: values.get(name) for name in SHOWN_COLUMNS} | {"probability": fraud.probability}
