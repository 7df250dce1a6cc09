"""`fraud ledger`: its tables, and how far the output topic is recorded."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.offsets_commands import Partitions
from include.cli.table import table

if TYPE_CHECKING:
    from include.ledger.recorded_offsets import LedgerOffsets

app = typer.Typer(
    name="ledger",
    help="The ledger's tables, and how far the output topic is recorded there.\n\nIts database is Airflow's connection "
    "ledger_db as AIRFLOW_CONN_LEDGER_DB has it, or LOGGER_SQL_URI.",
    no_args_is_help=True,
)


@app.command()
def migrate() -> None:
    """Make the ledger's tables, or bring those that are there up to date. What they hold stays."""
    from include.ledger.connection import LedgerConnection
    from include.ledger.schema import migrate as migrate_tables

    address = LedgerConnection.from_environment(os.environ)
    before, now = migrate_tables(address)
    done = f"is up to date, version {now}" if before == now else f"from version {before or 'nothing'} to {now}"
    typer.echo(f"ledger at {address}: {done}")


@app.command()
def show() -> None:
    """How far the output topic is recorded: first offset retained, the next one to record, end, and what waits.

    Beneath it, what was gone before it could be recorded.
    """
    with _opened() as here:
        rows = here.standings()
        lost = here.lost()
        typer.echo(f"{here.topic.name} in the ledger")
    titles = ("partition", "first", "recorded", "end", "waiting", "recorded at (UTC)")
    cells = (
        (
            row.partition,
            row.first,
            "none" if row.recorded is None else row.recorded,
            row.end,
            row.waiting,
            row.recorded_at,
        )
        for row in rows
    )
    for line in table([titles, *cells]):
        typer.echo(line)
    for one, at in lost:
        typer.echo(f"lost: {one}, gone before it could be recorded (found {at} UTC)")


@app.command()
def rewind(
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|OFFSET|TIME",
            help="Where the next run of record_predictions begins: the first message retained, an offset of the output "
            "topic, or the first message from a time on (2026-01-31T08:00, UTC unless it says otherwise).",
        ),
    ],
    partition: Partitions = None,
) -> None:
    """Have the output topic recorded again, for rows that were deleted or altered. All others stay as they are."""
    with _opened() as here:
        for number, offset in sorted(here.rewind(to, partition or []).items()):
            done = "nothing is recorded yet, left alone" if offset is None else f"recorded again from {offset} on"
            typer.echo(f"{here.topic.name}/{number}: {done}")


def _opened() -> AbstractContextManager[LedgerOffsets]:
    from include.kafka.cluster import Cluster
    from include.ledger.connection import LedgerConnection
    from include.ledger.recorded_offsets import LedgerOffsets
    from include.settings import Settings

    topic = Settings.from_environment().output_topic
    return LedgerOffsets.opened(Cluster.from_environment(), LedgerConnection.from_environment(os.environ), topic)
