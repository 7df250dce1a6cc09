"""How a command ends that could not find out what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from include.errors import FraudError


@contextmanager
def exit_2_on_error(command: str) -> Iterator[None]:
    """One line on stderr and exit code 2, where 1 is an answer."""
    try:
        yield
    except FraudError as error:
        typer.echo(f"fraud {command}: {error}", err=True)
        raise typer.Exit(2) from None
