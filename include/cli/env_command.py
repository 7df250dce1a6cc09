"""The command `fraud env`. `python3 -m include.deployment` does the same before anything is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import TextOutput
from include.cli.registration import NOT_GOOD


def env(
    file: Annotated[Path, typer.Option(help="The file to write.")] = Path(".env"),
    accounts: Annotated[
        bool,
        typer.Option(
            "--accounts",
            help="Write it for Kafka, S3 and mail accounts instead of the local services, and remove the values of "
            "the local ones.",
        ),
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Copy settings from a secrets.ps1, a client.properties or an .env.", show_default=False
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --from: also replace values that the file already has.")
    ] = False,
) -> None:
    """Write the .env of docker compose with generated secrets, readable only by you. Existing values stay as they are.

    Exit code 0: the file is complete; 1: values are missing, which the last line names, or the file cannot be written.
    """
    from include.deployment.env_writer import write_env

    written, out = write_env(file, earlier=earlier, accounts=accounts, replace=replace), TextOutput()
    for line in written.lines():
        out.line(line)
    if written.missing:
        raise typer.Exit(NOT_GOOD)
