"""The command `fraud run`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from include.errors import SettingError


def run(command: Annotated[list[str], typer.Argument(help="The command to run, with its arguments.")]) -> None:
    """Run a command with Airflow connections that are built from plain environment variables.

    The variables are KAFKA_BOOTSTRAP_SERVERS, SASL_USERNAME, SASL_PASSWORD, SMTP_… and AWS_…. A connection that is
    already set stays as it is.

    Every container starts with this command. In a running container, `fraud run airflow …` has the same connections.

    Exit code: the command's own; 1: a variable is missing, or the command cannot be run.
    """
    from include.deployment.connection_variables import with_connections

    environment = with_connections(os.environ)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise SettingError(f"{command[0]!r} cannot be run: {error.strerror}") from error
