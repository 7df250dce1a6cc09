"""Hands over to Airflow's Python, which alone knows the connections, whatever backend holds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).parents[2]


def exec_airflow_module(module: str) -> NoReturn:
    """This process becomes `python -m module`, a module in plugins/."""
    folders = [str(_ROOT), str(_ROOT / "plugins"), os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", "")]
    path = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))
    # As `airflow connections test` has it: so that connections in Airflow's database are found.
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"}
    environment = os.environ | quiet | {"PYTHONPATH": path, "_AIRFLOW_PROCESS_CONTEXT": "server"}
    os.execve(sys.executable, [sys.executable, "-m", module], environment)  # noqa: S606
