"""`fraud export-confirmed`."""

from __future__ import annotations

from include.cli.airflow_module import exec_airflow_module

HELP = (
    "Store the payments that people have confirmed, and that were not exported yet, as Parquet at FRAUD_CONFIRMED_URL: "
    "what `fraud train --confirmed` learns from.\n\n"
    "The DAG export_confirmed does the same once a day, with the same connections: ledger_db and aws_default. It may "
    "be killed and repeated at any time. Exit code 0: all is stored, or there was nothing; 1: it could not be."
)


def export_confirmed() -> None:
    """See HELP."""
    exec_airflow_module("fraud_scoring.confirmed_bucket")
