"""`fraud confirm`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.table import table
from include.cli.text import plain, shown
from include.errors import ConfirmationError, FraudError, SettingError

if TYPE_CHECKING:
    from include.reviews.payment_source import PaymentSource
    from include.reviews.verdict_writer import VerdictCounts

HELP = (
    "Say of payments whether they were fraud, by their trans_num; `fraud train --confirmed` learns from it.\n\n"
    "One payment: fraud confirm TRANS_NUM fraud. Many: fraud confirm --csv FILE, the CSV of a mailed report or of "
    "--list --output, with its column verdict filled in: fraud or genuine (true, yes, 1 and false, no, 0 are good, "
    "too), or empty where nobody has reviewed it. What to review: fraud confirm --list. Where several payments "
    "have one trans_num, --source, or the CSV's columns source and row, name the one that is meant.\n\n"
    "A verdict may be changed; each is kept, with who gave it and when. The ledger is the database of "
    "AIRFLOW_CONN_LEDGER_DB or LOGGER_SQL_URI. "
    "Exit code 0: all applied; 1: a payment is not known, or a line is bad; 2: a file or the database cannot be "
    "used, and nothing was applied."
)
_LONGEST_MERCHANT = 40


class VerdictChoice(StrEnum):
    fraud = "fraud"
    genuine = "genuine"


def confirm(
    trans_num: Annotated[str | None, typer.Argument(help="The payment.", show_default=False)] = None,
    verdict: Annotated[
        VerdictChoice | None, typer.Argument(help="What it was.", show_default=False, case_sensitive=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC/PARTITION/OFFSET",
            help="Which payment, where several have that trans_num: its place, as in `fraud trace`.",
            show_default=False,
        ),
    ] = None,
    row: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --source: index of the payment in its message, if several there have that trans_num.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who says so.", show_default="this user's name")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV with the columns trans_num and verdict.")
    ] = None,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="With --csv: apply nothing where one line is bad.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show frauds that nobody has reviewed, newest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --list: how many at most.")] = 100,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --list: write a CSV to fill in.", show_default=False)
    ] = None,
) -> None:
    """See HELP."""
    asked = [trans_num is not None, csv is not None, list_]
    if asked.count(True) != 1 or (trans_num is None) != (verdict is None):
        raise typer.BadParameter("give a TRANS_NUM and fraud or genuine, or --csv FILE, or --list")
    if (all_or_nothing and csv is None) or (output and not list_):
        raise typer.BadParameter("--all-or-nothing goes with --csv, and --output with --list")
    if (source is not None and trans_num is None) or (row is not None and source is None):
        raise typer.BadParameter("--source goes with a TRANS_NUM, and --row with --source")
    try:
        if list_:
            _list(limit, output)
        elif csv is not None:
            _tell(csv, _confirm_file(csv, _who(by), all_or_nothing), all_or_nothing)
        elif trans_num is not None and verdict is not None:
            _confirm_one(plain(trans_num), verdict, _who(by), _source(source, row))
    except FraudError as error:
        typer.echo(f"fraud confirm: {error}", err=True)
        is_unknown = trans_num is not None and isinstance(error, ConfirmationError)
        raise typer.Exit(1 if is_unknown else 2) from None


def _source(text: str | None, row: int | None) -> PaymentSource | None:
    from include.reviews.payment_source import PaymentSource

    if text is None:
        return None
    if found := PaymentSource.parse(plain(text), "" if row is None else str(row)):
        return found
    raise SettingError(f"--source {plain(text)!r}: give TOPIC/PARTITION/OFFSET, such as topic_1/0/1640")


def _confirm_one(trans_num: str, verdict: VerdictChoice, by: str, source: PaymentSource | None) -> None:
    from include.ledger.connection import LedgerConnection
    from include.reviews.verdict_writer import VerdictWriter

    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        done = ledger.confirm(trans_num, fraud=verdict is VerdictChoice.fraud, reviewer=by, source=source)
    how = "changed" if done.changed else "unchanged" if done.unchanged else "applied"
    typer.echo(f"{trans_num}: {verdict.value} ({how})")


def _confirm_file(path: Path, by: str, all_or_nothing: bool) -> VerdictCounts:
    from include.ledger.connection import LedgerConnection
    from include.reviews.verdict_file import read
    from include.reviews.verdict_writer import VerdictWriter

    file = read(path)
    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        origin = f"fraud confirm --csv {plain(path.name)}"
        return ledger.confirm_all(file, reviewer=by, origin=origin, all_or_nothing=all_or_nothing)


def _tell(path: Path, done: VerdictCounts, all_or_nothing: bool) -> None:
    for one in done.bad:
        typer.echo(f"{path}, line {one.line}: {one.why}", err=True)
    typer.echo(str(done))
    if done.bad:
        if all_or_nothing:
            typer.echo("Nothing was applied, for a line is bad.", err=True)
        raise typer.Exit(1)


def _list(limit: int, output: Path | None) -> None:
    from include.ledger.connection import LedgerConnection
    from include.reviews.unreviewed import unreviewed, write_csv
    from include.reviews.verdict_writer import VerdictWriter

    with VerdictWriter.opened(LedgerConnection.from_environment(os.environ)) as ledger:
        found = unreviewed(ledger.connection, limit + 1)
    frauds = found[:limit]
    if not frauds:
        typer.echo("No fraud waits for a review: each that the ledger knows has its verdict.")
        return
    if output is not None:
        write_csv(output, frauds)
        typer.echo(
            f"{len(frauds):,} frauds to review are in {output}: fill in its column verdict, and give it back by "
            f"`fraud confirm --csv {output}`"
        )
    else:
        texts = [fraud.texts() | {"merchant": (fraud.merchant or "")[:_LONGEST_MERCHANT]} for fraud in frauds]
        titles = [name.replace("_", " ") if name != "trans_num" else name for name in texts[0]]
        for line in table([titles, *([shown(text) for text in row.values()] for row in texts)]):
            typer.echo(line)
    if len(found) > limit:
        typer.echo(f"More wait than these {limit:,}, the newest: see --limit.")


def _who(by: str | None) -> str:
    from include.user import user_name

    name = plain(user_name() if by is None else by).strip()
    if not name:
        raise SettingError("--by '': give a name")
    return name
