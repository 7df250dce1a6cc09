"""Start the process of one part and wait until it is healthy."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from dev.stack.home import StackHome
from dev.stack.part import Part
from dev.stack.stack_errors import StackError

TICK = 0.2


@dataclass
class RunningPart:
    """Hold a part's process and its state: waiting, starting, up, stopped or dead."""

    part: Part
    state: str = "waiting"
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    stopping: bool = False

    def exit_code(self) -> int | None:
        """Return the exit code of the process, or None while it runs or before it was started."""
        return self.process.poll() if self.process else None

    def spawn(self, home: StackHome) -> None:
        """Start the process. A log of more than 20 MB is moved aside first."""
        log = home.log(self.part.name)
        if log.exists() and log.stat().st_size > 20_000_000:
            log.replace(log.with_suffix(".log.1"))
        self.started, self.stopping = time.time(), False
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.part.command(home), env=self.part.full_environment(home),
                cwd=home.data(self.part.name), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,  # Ctrl-C then reaches only the supervisor, which stops the parts in order
            )  # fmt: skip

    def await_health(self, home: StackHome, began: float, ending: threading.Event) -> None:
        """Wait until the check passes. Raises StackError if the process ends, or at the part's time-out."""
        part, log = self.part, home.log(self.part.name)
        reason = ""
        while not ending.is_set():
            if (code := self.exit_code()) is not None:
                raise StackError(part.name, f"the process ended with exit code {code}{_last_line(log)}", log)
            try:
                part.check(home, self.started)
                return
            except Exception as error:  # not healthy yet
                reason = str(error).strip().partition("\n")[0]
            if time.monotonic() - began > part.timeout:
                raise StackError(part.name, f"not healthy after {part.timeout:.0f} s ({reason})", log)
            time.sleep(TICK)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1][:200]})" if lines else ""
