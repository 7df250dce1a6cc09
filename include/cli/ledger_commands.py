"""The commands `fraud ledger migrate`, `show` and `rewind`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import JsonSwitch, TextOutput, output
from include.cli.offsets_commands import Partitions
from include.cli.registration import add_command

if TYPE_CHECKING:
    from include.ledger.recorded_offsets import LedgerOffsets

app = typer.Typer(
    name="ledger",
    help="Create the ledger's tables; show or set how far the output topic is recorded there.\n\nThe database is "
    "Airflow's connection ledger_db in AIRFLOW_CONN_LEDGER_DB, else LOGGER_SQL_URI.",
    no_args_is_help=True,
)


def migrate() -> None:
    """Create the ledger's tables, or bring existing ones up to date. Their rows stay.

    Exit code 0: the tables are up to date; 1: they are not, and stay usable as they were.
    """
    from include.ledger.connection import LedgerConnection
    from include.ledger.schema import migrate as migrate_tables

    address = LedgerConnection.from_environment(os.environ)
    before, now = migrate_tables(address)
    result = f"is up to date, version {now}" if before == now else f"from version {before or 'nothing'} to {now}"
    TextOutput().line(f"ledger at {address}: {result}")


def show(json: JsonSwitch = False) -> None:
    """Show how far the output topic is recorded in the ledger, and the lag of each partition.

    For each partition: the first offset retained, the next offset to record, the end offset, and how many messages wait
    for the recorder. Below: the offsets that expired before they were recorded.

    `fraud offsets show` shows how far the input topic is scored.
    """
    import msgspec

    with _open_ledger() as ledger:
        rows = ledger.partitions()
        lost = ledger.lost()
        topic = ledger.topic.name
    out = output(json=json)
    out.line(f"records of the output topic {topic} in the ledger")
    out.table(
        ("partition", "first", "recorded", "end", "waiting", "recorded at (UTC)"),
        (
            (
                row.partition,
                row.first,
                "none" if row.recorded is None else row.recorded,
                row.end,
                row.lag,
                row.recorded_at,
            )
            for row in rows
        ),
    )
    for offsets, found_at in lost:
        out.line(f"lost: {offsets}, expired unrecorded (found {found_at} UTC)")
    out.document(
        {
            "topic": topic,
            "partitions": [msgspec.to_builtins(row) | {"waiting": row.lag} for row in rows],
            "lost": [msgspec.to_builtins(offsets) | {"found_at": found_at} for offsets, found_at in lost],
        }
    )


def rewind(
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|OFFSET|TIME",
            help="Where the next run of record_predictions begins: the first message retained, an offset of the output "
            "topic, or the first message since a time (2026-01-31T08:00; UTC unless it has a time zone).",
        ),
    ],
    partition: Partitions = None,
) -> None:
    """Record the output topic again from an earlier offset, to restore rows that were deleted or altered.

    Other rows stay as they are.

    Exit code 0: the next run of record_predictions begins there; 1: nothing was changed.
    """
    out = TextOutput()
    with _open_ledger() as ledger:
        for number, offset in sorted(ledger.rewind(to, partition or []).items()):
            result = "nothing is recorded yet, not changed" if offset is None else f"recorded again from {offset} on"
            out.line(f"{ledger.topic.name}/{number}: {result}")


add_command(app, migrate)
add_command(app, show)
add_command(app, rewind)


def _open_ledger() -> AbstractContextManager[LedgerOffsets]:
    from include.kafka.cluster import Cluster
    from include.ledger.connection import LedgerConnection
    from include.ledger.recorded_offsets import LedgerOffsets
    from include.settings import Settings

    topic = Settings.from_environment().output_topic
    return LedgerOffsets.open(Cluster.from_environment(), LedgerConnection.from_environment(os.environ), topic)
