"""The stack from outside: what the command line, tests and the demo call."""

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
from dev.stack.home import Home, Options, write_private
from dev.stack.part import ROOT
from dev.stack.parts import airflow_of, select
from dev.stack.stack_errors import StackError


@dataclass(frozen=True)
class PartStatus:
    name: str
    state: str
    pid: int | None
    address: str
    log: Path


class Stack:
    def __init__(self, home: Path | str = ".local", options: Options | None = None) -> None:
        """Without options it is the kind that its folder was made for."""
        self.home = Home(home)
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What stack.env holds, while the stack is up."""
        return self.home.read_environment()

    def is_up(self) -> bool:
        return self.home.supervisor() is not None and bool(self.home.read_state().get("ready"))

    def up(
        self, only: Iterable[str] | None = None, *, say: Callable[[str], None] = lambda text: None, leave: bool = True
    ) -> bool:
        """Start it in the background and wait until it is healthy; False if it was up before.

        `leave`: it outlives the caller. Otherwise it ends when the caller does, however that dies.
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
                [sys.executable, "-m", "dev.stack", *words, *(["--background"] if leave else [])],
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
            raise ToldError(problem or f"stack: ended with exit code {child.returncode}; log: {progress}")
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
        """Stop it and wait until no process is left; says how many ran without a supervisor: some after a crash."""
        if pid := self.home.supervisor():
            os.kill(pid, signal.SIGTERM)
            self._await(lambda: self.home.supervisor() is None, 90, "does not stop")
        if self._child:
            self._child.wait()
        left = processes.end(self.home)
        self.home.environment_file.unlink(missing_ok=True)
        (self.home.run / "state.json").unlink(missing_ok=True)
        return left

    def status(self) -> list[PartStatus]:
        """What the supervisor says of each part; it looks at them several times a second."""
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
        """Start a part again that was stopped, killed or died, and wait until it is healthy."""
        self._request("start", part)

    def stop(self, part: str) -> None:
        """Stop a part in good order."""
        self._request("stop", part)

    def kill(self, part: str) -> None:
        """SIGKILL to every process of a part, and wait until the supervisor knows."""
        names = self._names(part)
        processes.kill(self.home, names)
        self._await(
            lambda: all(self.home.read_state()["parts"][name]["state"] != "up" for name in names),
            10,
            "did not notice the end of a part",
        )

    def _names(self, part: str) -> tuple[str, ...]:
        there = self.home.read_state().get("parts", {})
        names = airflow_of(there) if part == "airflow" else (part,)
        for name in names or (part,):
            if name not in there:
                raise StackError(name, f"no part of the stack that runs in {self.home.path}")
        return names

    def _request(self, action: str, part: str) -> None:
        for name in self._names(part):
            identity = uuid.uuid4().hex
            with self.home.lock("control"):
                write_private(
                    self.home.run / "request.json", json.dumps({"id": identity, "action": action, "part": name})
                )
                self._await(lambda: not (self.home.run / "request.json").exists(), 240, f"did not {action} {name}")
                reply = json.loads((self.home.run / "reply.json").read_text())
            if reply["error"]:
                raise ToldError(reply["error"])

    def _await(self, condition: Callable[[], bool], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise StackError("stack", f"{problem} within {seconds:.0f} s", self.home.log("stack"))
            time.sleep(0.05)


class ToldError(StackError):
    """An error that another process has put into words already."""

    def __init__(self, line: str) -> None:
        Exception.__init__(self, line)
