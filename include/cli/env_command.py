"""`fraud env`. Where nothing is installed yet, `python3 -m include.deployment` does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def env(
    file: Annotated[Path, typer.Option(help="The file.")] = Path(".env"),
    accounts: Annotated[
        bool,
        typer.Option(
            "--accounts",
            help="For Kafka, S3 and mail accounts instead of local services, whose own values then go.",
        ),
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", help="Take over a secrets.ps1, a client.properties or an .env.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --from: also what the file has with another value.")
    ] = False,
) -> None:
    """Write the .env of docker compose: generated secrets, readable by you alone. What is there stays as it is."""
    from include.deployment.initial import write_env

    done = write_env(file, earlier=earlier, accounts=accounts, replace=replace)
    for line in done.lines():
        typer.echo(line)
    if done.missing:
        raise typer.Exit(1)
