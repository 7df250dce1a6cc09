#!/usr/bin/env python
"""Airflow's tables and its administrator, at each start of docker compose. What is there stays.

The password is in no command line, where other users of the machine would see it.
"""

from __future__ import annotations

import os

from airflow.cli.cli_parser import get_parser


def airflow(*words: str) -> None:
    arguments = get_parser().parse_args(words)
    arguments.func(arguments)


airflow("db", "migrate")
airflow(
    "users", "create", "--username", "admin", "--role", "Admin", "--firstname", "Airflow", "--lastname", "Admin",
    "--email", "admin@example.com", "--password", os.environ["AIRFLOW_ADMIN_PASSWORD"],
)  # fmt: skip
