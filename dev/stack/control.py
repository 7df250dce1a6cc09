"""Control a stack from another process: the command line, tests and the demo use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from dev.stack import processes
from dev.stack.home import Options, StackHome, write_private
from dev.stack.part import ROOT
from dev.stack.parts import airflow_of, select
from dev.stack.stack_errors import StackError


@dataclass(frozen=True)
class PartStatus:
    """Describe one part for `status`. `state` is waiting, starting, up, stopped, dead or orphan."""

    name: str
    state: str
    pid: int | None
    address: str
    log: Path


class Stack:
    """Start, stop and query the stack in one folder."""

    def __init__(self, home: Path | str = ".local", options: Options | None = None) -> None:
        """Take the stack's folder. Without options the stack has those that its folder was created with."""
        self.home = StackHome(home)
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return the variables of `stack.env`, empty while the stack is down."""
        return self.home.read_environment()

    def is_up(self) -> bool:
        """Return whether a supervisor runs and all parts have started."""
        return self.home.supervisor() is not None and bool(self.home.read_state().get("ready"))

    def up(
        self,
        only: Iterable[str] | None = None,
        *,
        say: Callable[[str], None] = lambda text: None,
        leave: bool = True,
        without_airflow: bool = False,
    ) -> bool:
        """Start the stack and wait until it is healthy. Return False if it was up before.

        With `leave` the stack outlives the caller; without it, the stack ends when the caller does, even if that is
        killed. `without_airflow` leaves Airflow to a later `start("airflow")`. Raises StackError if a part does not
        start.
        """
        options = self._options or self.home.options
        names = select(only, options)
        if self.home.supervisor():
            return False
        if self._child:
            self._child.wait()
        self.home.make_folders()
        self.home.choose(options)
        progress, errors = self.home.log("stack"), self.home.run / "error"
        with progress.open("ab") as output, errors.open("wb") as error_output:
            begin = output.tell()
            words = ["run", "--home", str(self.home.path), "--only", ",".join(names), "--parent", str(os.getpid())]
            self._child = child = subprocess.Popen(
                [
                    sys.executable, "-m", "dev.stack", *words, *(["--background"] if leave else []),
                    *(["--without-airflow"] if without_airflow else []),
                ],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=error_output, start_new_session=True,
            )  # fmt: skip
        try:
            self._follow(child, progress, begin, say)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        if child.returncode is not None:
            problem = errors.read_text().strip().rpartition("\n")[2]
            raise SupervisorError(problem or f"stack: ended with exit code {child.returncode}; log: {progress}")
        return True

    def _follow(self, child: subprocess.Popen[bytes], progress: Path, begin: int, say: Callable[[str], None]) -> None:
        with progress.open() as lines:
            lines.seek(begin)
            while True:
                over = child.poll() is not None or self.is_up()
                for line in lines:
                    say(line.rstrip("\n"))
                if over:
                    return
                time.sleep(0.1)

    def down(self) -> int:
        """Stop the stack and wait for its end. Return how many processes ran without a supervisor, after a crash."""
        if pid := self.home.supervisor():
            os.kill(pid, signal.SIGTERM)
            self._await(lambda: self.home.supervisor() is None, 90, "the supervisor has not stopped")
        if self._child:
            self._child.wait()
        left = processes.end(self.home)
        self.home.environment_file.unlink(missing_ok=True)
        (self.home.run / "state.json").unlink(missing_ok=True)
        return left

    def status(self) -> list[PartStatus]:
        """Return the state of each part as the supervisor wrote it last; it looks several times a second."""
        supervised = self.home.supervisor() is not None
        rows = []
        for name, row in self.home.read_state().get("parts", {}).items():
            state = row["state"]
            if state == "up" and not (row["pid"] and psutil.pid_exists(row["pid"])):
                state = "dead"
            rows.append(
                PartStatus(name, state if supervised else "orphan", row["pid"], row["address"], self.home.log(name))
            )
        return rows

    def start(self, part: str) -> None:
        """Start a part that was stopped, killed or died, and wait until it is healthy."""
        self._request("start", part)

    def stop(self, part: str) -> None:
        """Stop a part with its own signal."""
        self._request("stop", part)

    def kill(self, part: str) -> None:
        """Send SIGKILL to every process of a part, and wait until the supervisor has noticed."""
        names = self._names(part)
        processes.kill(self.home, names)
        self._await(
            lambda: all(self.home.read_state()["parts"][name]["state"] != "up" for name in names),
            10,
            "the supervisor has not noticed that the part ended",
        )

    def _names(self, part: str) -> tuple[str, ...]:
        there = self.home.read_state().get("parts", {})
        names = airflow_of(there) if part == "airflow" else (part,)
        for name in names or (part,):
            if name not in there:
                raise StackError(name, f"the stack in {self.home.path} has no such part")
        return names

    def _request(self, action: str, part: str) -> None:
        for name in self._names(part):
            identity = uuid.uuid4().hex
            with self.home.lock("control"):
                write_private(
                    self.home.run / "request.json", json.dumps({"id": identity, "action": action, "part": name})
                )
                self._await(
                    lambda: not (self.home.run / "request.json").exists(),
                    240,
                    f"no {action} of {name}",
                )
                reply = json.loads((self.home.run / "reply.json").read_text())
            if reply["error"]:
                raise SupervisorError(reply["error"])

    def _await(self, condition: Callable[[], bool], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise StackError("stack", f"{problem} within {seconds:.0f} s", self.home.log("stack"))
            time.sleep(0.05)


class SupervisorError(StackError):
    """Report an error that the supervisor's process has worded."""

    def __init__(self, line: str) -> None:
        """Take the whole line."""
        Exception.__init__(self, line)
