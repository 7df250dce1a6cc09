"""`fraud ledger`: its tables, and how far the output topic is recorded."""

from __future__ import annotations

import os

import typer

app = typer.Typer(
    name="ledger",
    help="The ledger's tables, and how far the output topic is recorded there.\n\nIts database is Airflow's connection "
    "ledger_db as AIRFLOW_CONN_LEDGER_DB has it, or LOGGER_SQL_URI.",
    no_args_is_help=True,
)


@app.command()
def migrate() -> None:
    """Make the ledger's tables, or bring those that are there up to date. What they hold stays."""
    from include.ledger.address import Address
    from include.ledger.schema import migrate as migrate_tables

    address = Address.from_environment(os.environ)
    before, now = migrate_tables(address)
    done = f"is up to date, version {now}" if before == now else f"from version {before or 'nothing'} to {now}"
    typer.echo(f"ledger at {address}: {done}")
