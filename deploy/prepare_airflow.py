#!/usr/bin/env python
"""Airflow's tables and its administrator, at each start of docker compose. What is there stays.

The password is in no command line, where other users of the machine would see it.
"""

from __future__ import annotations

import os

from airflow.cli.cli_parser import get_parser


def administrator(password: str) -> list[str]:
    """Return `airflow` arguments that create the admin user, as --option=value: a password may begin with a minus."""
    user = ("username=admin", "role=Admin", "firstname=Airflow", "lastname=Admin", "email=admin@example.com")
    return ["users", "create", *(f"--{option}" for option in user), f"--password={password}"]


def airflow(*words: str) -> None:
    """Run one `airflow` command in this process."""
    arguments = get_parser().parse_args(words)
    arguments.func(arguments)


if __name__ == "__main__":
    airflow("db", "migrate")
    airflow(*administrator(os.environ["AIRFLOW_ADMIN_PASSWORD"]))
