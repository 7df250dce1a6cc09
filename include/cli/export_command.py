"""The command `fraud export-confirmed`."""

from __future__ import annotations

from include.cli.airflow_module import run_airflow_module
from include.cli.console import JsonSwitch


def export_confirmed(json: JsonSwitch = False) -> None:
    """Store newly confirmed payments as Parquet files at FRAUD_CONFIRMED_URL, for `fraud train --confirmed`.

    The DAG export_confirmed does the same once a day, with the same connections: ledger_db and aws_default. The command
    may be killed and repeated at any time.

    Exit code 0: everything is stored, or there was nothing to export; 1: the export failed.
    """
    run_airflow_module("fraud_scoring.confirmed_bucket", json=json)
