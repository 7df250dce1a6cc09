"""A publisher in a process of its own, for tests that kill or freeze it: python -m tests.support.publisher batch point.

It prints each point of the protocol that it reaches, and waits for a line at `point`. The environment has its settings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class HaltedProcess:
    """A process that prints the points that it reaches, and waits at one of them."""

    process: subprocess.Popen[str]

    @classmethod
    def at(cls, stop_at: str, module: str, *words: str, environment: dict[str, str]) -> HaltedProcess:
        """Wait until the process waits at that point."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words, stop_at], cwd=ROOT, env=os.environ | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        passed = []
        for line in process.stdout:
            passed.append(line.strip())
            if passed[-1] == stop_at:
                return cls(process)
        raise AssertionError(f"it passed {passed} only: {process.communicate()[1]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)
        assert self.process.returncode == -signal.SIGKILL

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> tuple[int, str]:
        """Let the process go on; return its exit code and last output."""
        self.process.send_signal(signal.SIGCONT)
        said, errors = self.process.communicate("\n", timeout=90)
        lines = [line for line in (said + errors).splitlines() if not line.startswith("%")]  # librdkafka's own log
        return self.process.returncode, lines[-1]


def publisher(batch_id: str, stop_at: str, environment: dict[str, str]) -> HaltedProcess:
    return HaltedProcess.at(stop_at, "tests.support.publisher", batch_id, environment=environment)


def halt_at(stop_at: str) -> Callable[[str], None]:
    """Return the function that the process calls at each point."""

    def reached(point: str) -> None:
        sys.stdout.write(f"{point}\n")
        sys.stdout.flush()
        if point == stop_at:
            sys.stdin.readline()

    return reached


def main() -> None:
    from include.batch.manifest import Manifest
    from include.batch.publish import publish
    from include.kafka.cluster import Cluster
    from include.settings import Settings
    from include.storage.staging import Storage

    batch_id, stop_at = sys.argv[1:]
    settings = Settings.from_environment()
    storage = Storage.open(settings.staging_url)
    manifest = Manifest.load(storage, batch_id)
    published = publish(Cluster.from_environment(), settings, storage, manifest, halt_at(stop_at))
    sys.stdout.write(f"{sorted(outcome.value for outcome in published.outcomes.values())}\n")


if __name__ == "__main__":
    main()
