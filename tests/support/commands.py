"""The `airflow` command, as a shell with stack.env has it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence

from dev.stack.part import BIN, ROOT

# The command's own entry point: only its imports, which take most of its time, are done once.
_IN_TURN = """
import json, sys
from airflow.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *words]
    main()
"""


def airflow(environment: Mapping[str, str], *words: str) -> str:
    """What it printed. Raises CalledProcessError."""
    return _run(environment, str(BIN / "airflow"), *words)


def airflow_in_turn(environment: Mapping[str, str], commands: Sequence[Sequence[str]]) -> str:
    return _run(environment, str(BIN / "python"), "-c", _IN_TURN, json.dumps(commands))


def _run(environment: Mapping[str, str], *words: str) -> str:
    clean = {"PATH": f"{BIN}{os.pathsep}{os.defpath}", "HOME": os.environ.get("HOME", "/tmp"), "COLUMNS": "300"}
    done = subprocess.run(
        words,
        env=clean | dict(environment),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout + done.stderr
