"""`fraud check`: hands over to Airflow's Python, which alone knows the connections, whatever backend holds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

HELP = (
    "Try every connection that the scoring will use, with the settings at hand, and print one line each: ok, or what "
    "is wrong and how to mend it.\n\nNothing is published and nobody is mailed. It writes a file of a few bytes to "
    "the staging area and removes it, and downloads the model that would score. Exit code 0: all is well; 1: "
    "something is to mend."
)


def check() -> None:
    """Tries every connection; see the command's help."""
    folders = [str(_ROOT), str(_ROOT / "plugins"), os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", "")]
    path = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))
    # As `airflow connections test` has it: so that connections in Airflow's database are found.
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"}
    environment = os.environ | quiet | {"PYTHONPATH": path, "_AIRFLOW_PROCESS_CONTEXT": "server"}
    os.execve(sys.executable, [sys.executable, "-m", "fraud_scoring.check"], environment)  # noqa: S606
