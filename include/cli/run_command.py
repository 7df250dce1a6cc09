"""`fraud run`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from include.errors import SettingError

HELP = (
    "Run a command with Airflow's connections made from plain variables: KAFKA_BOOTSTRAP_SERVERS, SASL_USERNAME, "
    "SASL_PASSWORD, SMTP_…, AWS_…. A connection that is set already stays as it is.\n\n"
    "Every container starts by it; in one that runs, `fraud run airflow …` is what sees the same connections."
)
SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def run(command: Annotated[list[str], typer.Argument(help="With its arguments.")]) -> None:
    """See HELP."""
    from include.deployment.connection_variables import with_connections

    environment = with_connections(os.environ)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise SettingError(f"{command[0]!r} cannot be run: {error.strerror}") from error
