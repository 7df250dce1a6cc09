"""Run a module of `plugins/` with Airflow, which alone finds the connections of every secrets backend."""

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
    """End this process as `python -m module` ends, with `--json` if wanted.

    Importing Airflow writes airflow.cfg and logs into AIRFLOW_HOME, by default ~/airflow. If that does not exist, both
    go to a temporary folder. Then only the module leaves files there, such as a downloaded model.
    """
    folders = [str(_ROOT), str(_ROOT / "plugins"), os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", "")]
    path = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))
    # Like `airflow connections test`: connections in Airflow's database are found only in a "server" process.
    airflow = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "_AIRFLOW_PROCESS_CONTEXT": "server"}
    environment = os.environ | airflow | {"PYTHONPATH": path}
    command = [sys.executable, "-m", module, *(["--json"] if json else [])]
    home = Path(environment.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    if home.exists():
        os.execve(sys.executable, command, environment)  # noqa: S606
    with TemporaryDirectory(prefix="fraud-airflow-") as folder:
        written = {"AIRFLOW_CONFIG": f"{folder}/airflow.cfg", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{folder}/logs"}
        ended = subprocess.run(command, env=written | environment, check=False)  # noqa: S603
    for empty in (home / "fraud/staging", home / "fraud", home):
        with suppress(OSError):
            empty.rmdir()
    # A shell reports the signal that ended a process in the same way.
    raise typer.Exit(ended.returncode if ended.returncode >= 0 else 128 - ended.returncode)
