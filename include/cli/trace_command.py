"""The command `fraud trace`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import JsonSwitch, output, without_surrogates, write_error
from include.cli.registration import NOT_GOOD

if TYPE_CHECKING:
    from include.ledger.payment_trace import Prediction, RecordedVerdict, Trace, TracedPayment

_UNKNOWN = "not known yet: the record of this batch is not in the ledger yet"


def trace(
    trans_num: Annotated[str, typer.Argument(help="The payment's trans_num.", show_default=False)],
    json: JsonSwitch = False,
) -> None:
    """Show how a payment's prediction came about.

    From the ledger it shows the model and why it was chosen, the run, who was notified, and the verdicts of reviewers;
    also earlier predictions, if the payment was scored again. Card numbers are masked unless FRAUD_MASK_CARDS is false.

    Exit code 0: found; 1: the ledger has no such payment; 2: the ledger cannot be queried.
    """
    from include.ledger.connection import LedgerConnection
    from include.ledger.payment_trace import trace as trace_payment
    from include.settings import Settings

    trans_num = without_surrogates(trans_num)
    settings, address = Settings.from_environment(), LedgerConnection.from_environment(os.environ)
    found = trace_payment(address, trans_num, mask=settings.mask_cards)
    if found is None:
        write_error(
            f"fraud trace: the ledger at {address} has no payment with trans_num {trans_num!r}. It may not be recorded "
            "yet: `fraud ledger show` shows the lag. If it could not be scored, its message and the reason are in "
            f"{settings.dead_letter_topic}; predictions that could not be recorded are in "
            f"{settings.output_dead_letter_topic}"
        )
        raise typer.Exit(NOT_GOOD)
    out = output(json=json)
    for line in _lines(found):
        out.line(line)
    out.document(found)


def _lines(trace: Trace) -> Iterator[str]:
    count = len(trace.payments) + trace.more
    rest = f", these are the newest {len(trace.payments)}" if trace.more else ""
    yield f"trans_num {trace.trans_num}: {f'{count:,} payments have it{rest}' if count > 1 else 'one payment'}"
    for payment in trace.payments:
        yield from ("", *_payment(payment))
    if trace.more:
        yield from ("", f"{trace.more:,} older payments have it as well and are not shown")
    yield ""
    if not trace.verdicts:
        yield "confirmed   not yet: no verdict is recorded"
    for number, verdict in enumerate(trace.verdicts):
        which = f", for {verdict.source or 'an unknown payment among them'}" if count > 1 else ""
        yield f"{'before that' if number else 'confirmed  '} {_verdict(verdict)}{which}"


def _payment(payment: TracedPayment) -> Iterator[str]:
    amount = "an amount that cannot be read" if payment.amount is None else f"{payment.amount:f}"
    paid = _time(payment.paid_at) if payment.paid_at else "at a time that cannot be read"
    yield f"payment     {payment.source} row {payment.row}"
    merchant = f"{payment.merchant or 'an unnamed merchant'} ({payment.category or 'no category'})"
    yield f"paid        {paid}: {amount} to {merchant}"
    yield f"card        {payment.card or 'none'}"
    for number, prediction in enumerate(payment.predictions):
        yield ""
        if prediction.replaced_at is not None:
            yield f"  {_replaced(prediction, prediction.replaced_at)}:"
        elif number == 0 and len(payment.predictions) > 1:
            yield "  newest prediction:"
        yield from (f"  {line}" for line in _prediction(prediction))


def _replaced(prediction: Prediction, at: datetime) -> str:
    when = f"on {_time(at)} by {prediction.replaced_by}"
    if prediction.replaced_for == "altered":
        return f"altered {when} without being scored again; until then the row said"
    reason = {
        "scored again": " because it was scored again",
        "another payment": " because another payment took its place: the topic was recreated",
    }.get(prediction.replaced_for or "", "")
    return f"replaced {when}{reason}"


def _prediction(prediction: Prediction) -> Iterator[str]:
    probability = "" if prediction.probability is None else f" (probability {prediction.probability:.4g})"
    yield f"{'FRAUD' if prediction.fraud else 'no fraud'}{probability}, scored on {_time(prediction.scored_at)}"
    name = f"{prediction.model_name} version {prediction.model_version}, " if prediction.model_name else ""
    yield f"model     {name}MLflow run {prediction.model_run_id}"
    yield f"chosen    {_choice(prediction)}"
    offsets = "" if prediction.offsets is None else ", offsets [{}, {}) of its partition".format(*prediction.offsets)
    yield f"batch     {prediction.batch_id}{offsets}"
    yield f"Airflow   {f'run {prediction.run.run_id}: {prediction.run.url}' if prediction.run else _UNKNOWN}"
    yield f"notified  {_notified(prediction)}"
    published = f"output partition {prediction.output_partition}, offset {prediction.output_offset}"
    yield f"published {published}; recorded on {_time(prediction.recorded_at)}"


def _choice(prediction: Prediction) -> str:
    choice = prediction.choice
    if choice is None:
        return _UNKNOWN
    person = choice.whom or "an unknown person"
    origin = {
        "default": "the default, FRAUD_MODEL",
        "hold": f"held by {person}",
        "run configuration": f"requested in the run's configuration by {person}",
    }.get(choice.by, choice.by)
    return f"{choice.asked}, {origin}{f'; reason: {choice.reason}' if choice.reason else ''}"


def _notified(prediction: Prediction) -> str:
    if not prediction.fraud:
        return "no one, because it is not fraud"
    if prediction.mail is not None:
        mail = prediction.mail
        return f"{', '.join(mail.recipients)} on {_time(mail.at)}, Message-ID {mail.message_id}"
    if prediction.offsets is None:
        return _UNKNOWN
    return "no one yet: the report is pending, was given up, or its mail is not recorded yet"


def _verdict(verdict: RecordedVerdict) -> str:
    return f"{'fraud' if verdict.fraud else 'genuine'}, by {verdict.by} on {_time(verdict.at)} ({verdict.origin})"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
