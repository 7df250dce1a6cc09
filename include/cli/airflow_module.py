"""Runs a module of `plugins/` in Airflow, because only Airflow finds the connections of every secrets backend."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import typer

_ROOT = Path(__file__).parents[2]


def run_airflow_module(module: str, *, json: bool) -> NoReturn:
    """Run `python -m module`, with `--json` if requested, and exit with its exit code.

    Importing Airflow writes airflow.cfg and logs into AIRFLOW_HOME, by default ~/airflow. If that folder does not
    exist, both go to a temporary folder, so that only the module leaves files, such as a downloaded model.
    """
    folders = [str(_ROOT), str(_ROOT / "plugins"), os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", "")]
    path = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))
    # As in `airflow connections test`: only a "server" process finds connections in Airflow's database.
    airflow = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "_AIRFLOW_PROCESS_CONTEXT": "server"}
    environment = os.environ | airflow | {"PYTHONPATH": path}
    command = [sys.executable, "-m", module, *(["--json"] if json else [])]
    home = Path(environment.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    if home.exists():
        os.execve(sys.executable, command, environment)  # noqa: S606
    with TemporaryDirectory(prefix="fraud-airflow-") as folder:
        temporary = {"AIRFLOW_CONFIG": f"{folder}/airflow.cfg", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{folder}/logs"}
        process = subprocess.run(command, env=temporary | environment, check=False)  # noqa: S603
    for empty in (home / "fraud/staging", home / "fraud", home):
        with suppress(OSError):
            empty.rmdir()
    # Shells report a process that a signal ended in the same way.
    raise typer.Exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)
