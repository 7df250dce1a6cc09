"""The command `fraud confirm`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import JsonSwitch, Output, output, without_surrogates, write_error
from include.cli.registration import NOT_GOOD
from include.errors import ConfirmationError, SettingError

if TYPE_CHECKING:
    from include.reviews.payment_source import PaymentSource

_MERCHANT_LETTERS = 40


class VerdictChoice(StrEnum):
    """The verdicts that a reviewer can give."""

    fraud = "fraud"
    genuine = "genuine"


def confirm(
    trans_num: Annotated[str | None, typer.Argument(help="The payment's trans_num.", show_default=False)] = None,
    verdict: Annotated[
        VerdictChoice | None, typer.Argument(help="What the payment was.", show_default=False, case_sensitive=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC/PARTITION/OFFSET",
            help="The payment's source, as `fraud trace` shows it, if several payments have that trans_num.",
            show_default=False,
        ),
    ] = None,
    row: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --source: the payment's index in its message, if several there have that trans_num.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who reviewed it.", show_default="this user's name")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file with the columns trans_num and verdict.")
    ] = None,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="With --csv: apply nothing if a line is invalid.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the frauds that were not reviewed yet, newest first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --list: maximum number.")] = 100,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="With --list: write them to a CSV file to fill in.", show_default=False
        ),
    ] = None,
    json: JsonSwitch = False,
) -> None:
    """Record whether payments were fraud, by their trans_num; `fraud train --confirmed` learns from it.

    One payment: fraud confirm TRANS_NUM fraud. Many: fraud confirm --csv FILE, where FILE is the CSV of a mailed report
    or of --list --output, with a column verdict: fraud or genuine (or true, yes, 1 and false, no, 0); empty
    where the payment is not reviewed. What to review: fraud confirm --list. If several payments have one trans_num,
    --source, or the CSV's columns source and row, choose one.

    A verdict may be changed; every change is kept with who made it and when. The ledger is the database of
    AIRFLOW_CONN_LEDGER_DB, else LOGGER_SQL_URI.

    Exit code 0: everything is applied; 1: a payment is unknown, or a line is invalid; 2: a file or the database cannot
    be used, and nothing was applied.
    """
    if [trans_num is not None, csv is not None, list_].count(True) != 1 or (trans_num is None) != (verdict is None):
        raise typer.BadParameter("give a TRANS_NUM and fraud or genuine, or --csv FILE, or --list")
    if (all_or_nothing and csv is None) or (output_file and not list_):
        raise typer.BadParameter("--all-or-nothing goes with --csv, and --output with --list")
    if (source is not None and trans_num is None) or (row is not None and source is None):
        raise typer.BadParameter("--source goes with a TRANS_NUM, and --row with --source")
    out = output(json=json)
    if list_:
        _list(out, limit, output_file)
    elif csv is not None:
        _confirm_file(out, csv, _reviewer(by), all_or_nothing=all_or_nothing)
    elif trans_num is not None and verdict is not None:
        _confirm_one(out, without_surrogates(trans_num), verdict, _reviewer(by), _source(source, row))


def _source(text: str | None, row: int | None) -> PaymentSource | None:
    from include.reviews.payment_source import PaymentSource

    if text is None:
        return None
    text = without_surrogates(text)
    if found := PaymentSource.parse(text, "" if row is None else str(row)):
        return found
    raise SettingError(f"--source {text!r}: give TOPIC/PARTITION/OFFSET, such as topic_1/0/1640")


def _confirm_one(out: Output, trans_num: str, verdict: VerdictChoice, by: str, source: PaymentSource | None) -> None:
    from include.ledger.connection import LedgerConnection
    from include.reviews.verdict_writer import VerdictWriter

    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        try:
            counts = ledger.confirm(trans_num, fraud=verdict is VerdictChoice.fraud, reviewer=by, source=source)
        except ConfirmationError as error:
            write_error(f"fraud confirm: {error}")
            raise typer.Exit(NOT_GOOD) from None
    outcome = "changed" if counts.changed else "unchanged" if counts.unchanged else "applied"
    out.line(f"{trans_num}: {verdict.value} ({outcome})")
    out.document(counts)


def _confirm_file(out: Output, path: Path, by: str, *, all_or_nothing: bool) -> None:
    from include.ledger.connection import LedgerConnection
    from include.reviews.verdict_file import read
    from include.reviews.verdict_writer import VerdictWriter

    file = read(path)
    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        origin = f"fraud confirm --csv {without_surrogates(path.name)}"
        counts = ledger.confirm_all(file, reviewer=by, origin=origin, all_or_nothing=all_or_nothing)
    for line in counts.bad:
        write_error(f"{path}, line {line.line}: {line.why}")
    out.line(str(counts))
    out.document(counts)
    if counts.bad:
        if all_or_nothing:
            write_error("Nothing was applied, because a line is invalid.")
        raise typer.Exit(NOT_GOOD)


def _list(out: Output, limit: int, file: Path | None) -> None:
    from include.ledger.connection import LedgerConnection
    from include.reviews.unreviewed import unreviewed, write_csv
    from include.reviews.verdict_writer import VerdictWriter

    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        found = unreviewed(ledger.connection, limit + 1)
    frauds, more = found[:limit], len(found) > limit
    if not frauds:
        out.line("No fraud waits for a review: each fraud in the ledger has a verdict.")
    elif file is not None:
        write_csv(file, frauds)
        out.line(
            f"{len(frauds):,} frauds to review are in {file}: fill in its column verdict, then run "
            f"`fraud confirm --csv {file}`"
        )
    else:
        texts = [fraud.texts() | {"merchant": (fraud.merchant or "")[:_MERCHANT_LETTERS]} for fraud in frauds]
        titles = [name.replace("_", " ") if name != "trans_num" else name for name in texts[0]]
        out.table(titles, (row.values() for row in texts))
    if more:
        out.line(f"These are the newest {limit:,}; more wait for a review: see --limit.")
    out.document({"frauds": frauds, "more": more})


def _reviewer(by: str | None) -> str:
    from include.user import user_name

    name = without_surrogates(user_name() if by is None else by).strip()
    if not name:
        raise SettingError("--by '': give a name")
    return name
