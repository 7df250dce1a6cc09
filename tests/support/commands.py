"""Runs the commands `airflow` and `fraud` with the variables of stack.env."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dev.stack.part import BIN, ROOT

DONE = "::: done :::"
# The command's own entry point, called again and again.
_PROGRAM = f"""
import json, sys
from airflow.__main__ import main
for line in sys.stdin:
    sys.argv = ["airflow", *json.loads(line)]
    main()
    print("{DONE}", flush=True)
"""


def airflow(environment: Mapping[str, str], *words: str) -> str:
    """Run `airflow` and return its output. Raise CalledProcessError if it fails."""
    return _run("airflow", environment, words)


def fraud(environment: Mapping[str, str], *words: str) -> str:
    """Run `fraud` and return its output. Raise CalledProcessError if it fails."""
    return _run("fraud", environment, words)


def _run(command: str, environment: Mapping[str, str], words: tuple[str, ...]) -> str:
    done = subprocess.run(
        [str(BIN / command), *words],
        env=_shell(environment),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout + done.stderr


def second_airflow(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment of a second Airflow with its own database, staging area and models."""
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "FRAUD_STAGING_URL": str(home / "staging"),
    }
    airflow({**environment, **own}, "db", "migrate")
    return {**environment, **own}


class AirflowInTurn:
    """Runs several commands in one process, because starting it takes most of the time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(BIN / "python"), "-c", _PROGRAM],
            env=_shell(environment),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *words: str) -> str:
        """Run a command and return its output."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.strip() == DONE:
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"airflow {' '.join(words)} ended:\n{''.join(lines)}")

    def __enter__(self) -> AirflowInTurn:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def _shell(environment: Mapping[str, str]) -> dict[str, str]:
    clean = {"PATH": f"{BIN}{os.pathsep}{os.defpath}", "HOME": os.environ.get("HOME", "/tmp"), "COLUMNS": "300"}
    return clean | dict(environment)
