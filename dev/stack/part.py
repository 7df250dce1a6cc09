"""What a part of the stack is: how it starts, when it is healthy, what it tells others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from dev.stack.home import LOOPBACK, Home
from dev.stack.processes import mark
from dev.stack.stack_errors import StackError

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Say = Callable[[str], None]

# What a caller's shell may hold for other servers must not reach the stack's.
_FOREIGN = ("AIRFLOW", "AWS_", "KAFKA_", "MLFLOW_", "PG", "WEED_", "JAVA_", "JDK_", "CLASSPATH", "PYTHON")


def without_proxy() -> dict[str, str]:
    """A caller's proxy must not be asked for what is on loopback."""
    value = ",".join(filter(None, (os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")), LOOPBACK, "localhost")))
    return {"no_proxy": value, "NO_PROXY": value}


class Part:
    """One process. A part is told its home at every call and keeps nothing itself."""

    name = ""
    ports: tuple[str, ...] = ()
    """Names of its ports; the first one is its address."""
    needs: tuple[str, ...] = ()
    """Parts that must be healthy before this one starts."""
    stop_signal: int = signal.SIGTERM
    option: str | None = None
    """Which of the stack's options it belongs to; it is there in every stack without one."""
    patience = 180.0
    """Seconds until it must be healthy: a cold start beside other work on two cores is slow."""

    def prepare(self, home: Home, say: Say) -> None:
        """What must be there before the process starts: downloads, data folders, schemas."""

    def command(self, home: Home) -> list[str]:
        raise NotImplementedError

    def environment(self, home: Home) -> Mapping[str, str]:
        """What the process gets beside the caller's environment."""
        return {}

    def exports(self, home: Home) -> Mapping[str, str]:
        """What stack.env says of this part."""
        return {}

    def check(self, home: Home, started: float) -> None:
        """Raises while the process that started then is not healthy."""
        raise NotImplementedError

    def settle(self, home: Home) -> None:
        """What is made inside a healthy service: databases, topics."""

    def stopped(self, home: Home) -> None:
        """Clean up what a stopped service leaves outside its home."""

    def full_environment(self, home: Home) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        path = {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        return inherited | path | dict(self.environment(home)) | mark(home, self.name)

    def run_once(self, home: Home, command: list[str]) -> None:
        """A command that prepares the part; what it says goes to the part's log."""
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
    """The status of a GET; raises OSError while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
