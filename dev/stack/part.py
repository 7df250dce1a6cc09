"""Define what each part of the stack has: a command, an environment, a health check and exported variables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from dev.stack.home import LOOPBACK, StackHome
from dev.stack.processes import mark
from dev.stack.stack_errors import StackError

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Say = Callable[[str], None]

# Variables of the caller for other servers; the stack's processes do not get them.
_FOREIGN = ("AIRFLOW", "AWS_", "KAFKA_", "MLFLOW_", "PG", "WEED_", "JAVA_", "JDK_", "CLASSPATH", "PYTHON")


def without_proxy() -> dict[str, str]:
    """Return the variables that keep a proxy out of connections to 127.0.0.1."""
    value = ",".join(filter(None, (os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")), LOOPBACK, "localhost")))
    return {"no_proxy": value, "NO_PROXY": value}


class Part:
    """Describe one process of the stack. Each method gets the stack's folder; a part keeps no state."""

    name = ""
    ports: tuple[str, ...] = ()
    """Names of its ports. The first one is shown as its address."""
    needs: tuple[str, ...] = ()
    """Parts that must be healthy before this one starts."""
    stop_signal: int = signal.SIGTERM
    option: str | None = None
    """Name of the option that adds this part; None for a part of every stack."""
    timeout = 180.0
    """Seconds within which it must become healthy. A cold start on two busy cores is slow."""

    def prepare(self, home: StackHome, say: Say) -> None:
        """Create what the process needs before it starts: downloads, data folders, schemas."""

    def command(self, home: StackHome) -> list[str]:
        """Return the command of the process."""
        raise NotImplementedError

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return the variables that the process gets in addition to the caller's."""
        return {}

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return the variables for `stack.env`."""
        return {}

    def check(self, home: StackHome, started: float) -> None:
        """Raise any exception while the process that was started at `started` (seconds since 1970) is not healthy."""
        raise NotImplementedError

    def set_up(self, home: StackHome) -> None:
        """Create what a healthy service must hold: databases, topics."""

    def clean_up(self, home: StackHome) -> None:
        """Remove what a stopped service leaves outside the stack's folder."""

    def full_environment(self, home: StackHome) -> dict[str, str]:
        """Return all variables of the process: the caller's without those for other servers, and its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        path = {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        return inherited | path | dict(self.environment(home)) | mark(home, self.name)

    def run_once(self, home: StackHome, command: list[str]) -> None:
        """Run a command that prepares the part, with its output in the part's log. Raises StackError if it fails."""
        with home.log(self.name).open("ab") as log:
            code = subprocess.run(
                command, env=self.full_environment(home), cwd=home.data(self.name), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, check=False,
            ).returncode  # fmt: skip
        if code:
            raise StackError(
                self.name, f"`{Path(command[0]).name} …` failed with exit code {code}", home.log(self.name)
            )


def http_status(url: str, seconds: float = 5.0) -> int:
    """Return the status of a GET. Raises OSError while the server does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
