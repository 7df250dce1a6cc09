"""Trace a trans_num in the ledger: its payments, their predictions with model, run and mail, and people's verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from include.ledger.connection import LedgerConnection
from include.ledger.schema import open_ledger
from include.payments.masking import mask_card

# docs/ledger.md has the same query for people who use PostgreSQL without the command; a test holds the two equal.
QUERY = """
WITH newest AS (
    SELECT trans_num, source_topic, source_partition, source_offset, source_row, count(*) OVER () AS payments
    FROM ledger.all_predictions
    WHERE trans_num = %(trans_num)s
    GROUP BY trans_num, source_topic, source_partition, source_offset, source_row
    ORDER BY max(scored_at) DESC, source_topic, source_partition, source_offset, source_row
    LIMIT 20
)
SELECT
    found.source_topic, found.source_partition, found.source_offset, found.source_row,
    found.paid_at, found.amt, found.merchant, found.category, found.cc_num,
    found.prediction, found.fraud_probability, found.scored_at, found.output_partition, found.output_offset,
    found.model_name, found.model_version, found.model_run_id,
    batch.model_asked, batch.chosen_by, batch.chosen_by_whom, batch.reason,
    found.batch_id, batch.dag_run_id, batch.run_url,
    part.start_offset, part.end_offset, part.recipients, part.message_id, part.mailed_at,
    found.recorded_at, found.replaced_at, found.replaced_by,
    CASE
        WHEN next.scored_at IS NULL THEN NULL
        WHEN found.altered THEN 'altered'
        WHEN next.trans_num = found.trans_num THEN 'scored again'
        ELSE 'another payment'
    END AS replaced_for,
    newest.payments,
    confirmed.fraud AS fraud_confirmed, confirmed.confirmed_by, confirmed.confirmed_at,
    (SELECT json_agg(json_build_object(
            'fraud', change.fraud, 'by', change.confirmed_by, 'at', change.confirmed_at, 'origin', change.origin,
            'source', change.source_topic || '/' || change.source_partition || '/' || change.source_offset
                || ' row ' || change.source_row
        ) ORDER BY change.change_id DESC)
     FROM ledger.confirmation_changes AS change WHERE change.trans_num = found.trans_num) AS confirmation_history
FROM newest
JOIN ledger.all_predictions AS found
    ON (found.source_topic, found.source_partition, found.source_offset, found.source_row)
        = (newest.source_topic, newest.source_partition, newest.source_offset, newest.source_row)
    -- Only a filter: an equality would make PostgreSQL read the trans_num's index once for each payment.
    AND found.trans_num IS NOT DISTINCT FROM newest.trans_num
LEFT JOIN LATERAL (
    SELECT * FROM ledger.all_predictions AS later
    WHERE (later.source_topic, later.source_partition, later.source_offset, later.source_row)
            = (found.source_topic, found.source_partition, found.source_offset, found.source_row)
        AND (later.replaced_at > found.replaced_at OR (later.replaced_at IS NULL AND found.replaced_at IS NOT NULL))
    ORDER BY later.replaced_at LIMIT 1
) AS next ON true
LEFT JOIN ledger.batches AS batch ON batch.batch_id = found.batch_id
LEFT JOIN ledger.batch_partitions AS part
    ON part.batch_id = found.batch_id AND part.partition = found.source_partition
LEFT JOIN ledger.confirmations AS confirmed
    ON (confirmed.source_topic, confirmed.source_partition, confirmed.source_offset, confirmed.source_row)
        = (found.source_topic, found.source_partition, found.source_offset, found.source_row)
    AND confirmed.trans_num = found.trans_num
ORDER BY found.scored_at DESC, found.replaced_at DESC NULLS FIRST, found.source_topic, found.source_partition,
    found.source_offset, found.source_row
"""


@dataclass(frozen=True)
class ModelReason:
    """Why a model was used: the request `asked`, where it came from, and who made it.

    `by` is `default`, `hold` or `run configuration`.
    """

    asked: str
    by: str
    whom: str | None
    reason: str | None


@dataclass(frozen=True)
class AirflowRun:
    """The DAG run that scored a batch."""

    run_id: str
    url: str


@dataclass(frozen=True)
class SentReport:
    """The mail that reported a prediction."""

    message_id: str
    recipients: tuple[str, ...]
    at: datetime


@dataclass(frozen=True)
class Prediction:
    """A prediction of a payment, the current one or one that was replaced.

    `offsets` are the batch's `[start, end)` on the payment's partition. They, `choice` and `run` are None until the
    batch record is in the ledger. `mail` is None unless a report on this partition was mailed.

    `replaced_for` is None for the current prediction, `scored again`, `another payment` if another payment has the
    same position since the topic was recreated, or `altered` if somebody changed the row by hand, or recording
    restored it.
    """

    fraud: bool
    probability: float | None
    scored_at: datetime
    model_name: str | None
    model_version: str | None
    model_run_id: str
    choice: ModelReason | None
    batch_id: str
    offsets: tuple[int, int] | None
    run: AirflowRun | None
    mail: SentReport | None
    output_partition: int
    output_offset: int
    recorded_at: datetime
    replaced_at: datetime | None
    replaced_by: str | None
    replaced_for: str | None


@dataclass(frozen=True)
class TracedPayment:
    """A payment and its predictions, newest first.

    `source` is its message on the input topic, `row` its row there from 0. `card` is masked unless FRAUD_MASK_CARDS is
    false.
    """

    source: str
    row: int
    paid_at: datetime | None
    amount: Decimal | None
    merchant: str | None
    category: str | None
    card: str | None
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class RecordedVerdict:
    """A person's verdict. `source` is the message and row of its payment, None if it names none of several."""

    fraud: bool
    by: str
    at: datetime
    origin: str
    source: str | None = None


@dataclass(frozen=True)
class Trace:
    """The payments with a trans_num, at most 20, and the verdicts on them, both newest first.

    `more` is the number of older payments with this trans_num. Of the verdicts on one payment, the first one counts.
    """

    trans_num: str
    payments: tuple[TracedPayment, ...]
    more: int
    verdicts: tuple[RecordedVerdict, ...]


def trace(ledger: LedgerConnection, trans_num: str, *, mask: bool) -> Trace | None:
    """Return what the ledger knows of a trans_num, None if it has no such payment. `mask` masks card numbers."""
    with open_ledger(ledger, "fraud trace") as connection, connection, connection.cursor() as cursor:
        cursor.execute(QUERY, {"trans_num": trans_num})
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    return _trace(trans_num, rows, mask=mask) if rows else None


def _trace(trans_num: str, rows: list[dict[str, Any]], *, mask: bool) -> Trace:
    rows_by_payment: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        source = f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}"
        rows_by_payment.setdefault((source, row["source_row"]), []).append(row)
    payments = tuple(_payment(*key, own_rows, mask=mask) for key, own_rows in rows_by_payment.items())
    verdicts = tuple(
        RecordedVerdict(
            verdict["fraud"], verdict["by"], datetime.fromisoformat(verdict["at"]), verdict["origin"], verdict["source"]
        )
        for verdict in rows[0]["confirmation_history"] or ()
    )
    return Trace(trans_num, payments, rows[0]["payments"] - len(payments), verdicts)


def _payment(source: str, source_row: int, rows: list[dict[str, Any]], *, mask: bool) -> TracedPayment:
    newest = rows[0]
    card = newest["cc_num"]
    return TracedPayment(
        source=source,
        row=source_row,
        paid_at=newest["paid_at"],
        amount=newest["amt"],
        merchant=newest["merchant"],
        category=newest["category"],
        card=mask_card(card) if mask and card is not None else card,
        predictions=tuple(_prediction(row) for row in rows),
    )


def _prediction(row: Mapping[str, Any]) -> Prediction:
    has_batch, is_mailed = row["dag_run_id"] is not None, row["mailed_at"] is not None
    has_offsets = row["start_offset"] is not None
    return Prediction(
        fraud=row["prediction"],
        probability=row["fraud_probability"],
        scored_at=row["scored_at"],
        model_name=row["model_name"],
        model_version=row["model_version"],
        model_run_id=row["model_run_id"],
        choice=ModelReason(row["model_asked"], row["chosen_by"], row["chosen_by_whom"], row["reason"])
        if has_batch
        else None,
        batch_id=row["batch_id"],
        offsets=(row["start_offset"], row["end_offset"]) if has_offsets else None,
        run=AirflowRun(row["dag_run_id"], row["run_url"]) if has_batch else None,
        mail=SentReport(row["message_id"], tuple(row["recipients"]), row["mailed_at"]) if is_mailed else None,
        output_partition=row["output_partition"],
        output_offset=row["output_offset"],
        recorded_at=row["recorded_at"],
        replaced_at=row["replaced_at"],
        replaced_by=row["replaced_by"],
        replaced_for=row["replaced_for"],
    )
