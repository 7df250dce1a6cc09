"""The command `fraud check`."""

from __future__ import annotations

import os
from pathlib import Path

from include.cli.airflow_module import run_airflow_module
from include.cli.console import JsonSwitch, write_error

_STACK_VARIABLES = Path(".local/stack.env")
_BROKERS = ("AIRFLOW_CONN_KAFKA_DEFAULT", "KAFKA_BOOTSTRAP_SERVERS")


def check(json: JsonSwitch = False) -> None:
    """Try every connection that the scoring uses, and report each: ok, or what is wrong and how to fix it.

    It uses the settings of this shell, and Airflow's connections in every secrets backend that is reachable from here.
    Nothing is published, recorded, exported or mailed. The command writes a file of a few bytes to the staging area and
    removes it, and downloads the model that would score.

    Exit code 0: everything works; 1: something has to be fixed.
    """
    if _STACK_VARIABLES.is_file() and not any(os.environ.get(name) for name in _BROKERS):
        write_error(
            f"fraud check: {' and '.join(_BROKERS)} are not set. To check the local stack, first run: "
            f"set -a; . {_STACK_VARIABLES}; set +a"
        )
    run_airflow_module("fraud_scoring.airflow_check", json=json)
