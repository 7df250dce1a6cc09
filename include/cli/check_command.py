"""`fraud check`."""

from __future__ import annotations

from include.cli.airflow_module import exec_airflow_module

HELP = (
    "Try every connection that the scoring will use, with the settings at hand, and print one line each: ok, or what "
    "is wrong and how to mend it.\n\nNothing is published, recorded or exported, and nobody is mailed. It writes a "
    "file of a few bytes to the staging area and removes it, and downloads the model that would score. Exit code 0: "
    "all is well; 1: something is to mend."
)


def check() -> None:
    """Tries every connection; see the command's help."""
    exec_airflow_module("fraud_scoring.airflow_check")
