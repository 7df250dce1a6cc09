"""A stack that faults may damage: tests trigger its DAG, change its settings and fill its staging disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dev.stack import Stack, processes
from dev.stack.part import BIN, ROOT
from tests.support.breakpoint import install_breakpoints
from tests.support.group import Group
from tests.support.leaks import require_no_leaks
from tests.support.live_stack import LiveStack
from tests.support.pipeline import DAG
from tests.support.waiting import wait_until

STAGING_MB = 256


class FaultStack(LiveStack):
    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.staging = _staging(self.home)
        self.model_cache = self.home / "airflow" / "fraud" / "models"

    @property
    def staging_is_small(self) -> bool:
        """Return whether the staging area has a small disk of its own."""
        return self.staging.is_mount()

    def change(self, **settings: str) -> None:
        """Change the product's settings, and restart what runs tasks or parses the DAG file."""
        write_settings(self.home, settings)
        for part in ("scheduler", "dag-processor"):
            self.stop(part)
            self.start(part)
        began = datetime.now(UTC)

        def parsed() -> bool:
            last = self.airflow.request("GET", f"dags/{DAG}")["last_parsed_time"]
            return bool(datetime.fromisoformat(last) > began)

        wait_until(parsed, "the DAG file is not read again")

    def recover(self) -> None:
        """Start the parts that do not run, in the order of their dependencies."""
        for part in self.dead_parts():
            self.start(part)

    def dead_parts(self) -> list[str]:
        return [row.name for row in self._stack.status() if row.state != "up"]

    def kill(self, part: str) -> None:
        if part == "kafka":
            self._await_log_starts()
        super().kill(part)

    def _await_log_starts(self) -> None:
        """Else a killed broker brings back what had expired: two topics' payments with the same places, for one."""
        lows = {
            f"{topic}-{partition}": low
            for topic in ("topic_1", "topic_2", "topic_1_dead_letters")
            for partition, low in Group(self.bootstrap_servers, topic=topic).lows().items()
        }
        data = self.home / "kafka" / "data"

        def noted() -> bool:
            begin = {name: min(int(file.stem) for file in (data / name).glob("*.log")) for name in lows}
            lines = (line.split() for line in (data / "log-start-offset-checkpoint").read_text().splitlines())
            begin |= {f"{words[0]}-{words[1]}": int(words[2]) for words in lines if len(words) == 3}
            return lows == {name: begin[name] for name in lows}

        wait_until(noted, f"Kafka does not note where its logs begin: {lows}")

    def kill_everything(self) -> None:
        self._await_log_starts()
        names = [row.name for row in self._stack.status()]
        processes.kill(self._stack.home, names)
        wait_until(lambda: not [row for row in self._stack.status() if row.state == "up"], "some part lives on")

    def set_offsets(self, offsets: Mapping[int, int]) -> None:
        """Set the group's offsets with `fraud offsets set`, which fences a running publish."""
        for partition, offset in offsets.items():
            words = ("offsets", "set", "--partition", str(partition), "--to", str(offset), "--yes")
            done = subprocess.run(
                [str(BIN / "fraud"), *words], env=os.environ | self.env, cwd=ROOT, capture_output=True, text=True,
                timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

    # The staging area, as somebody with a shell there finds it.

    def owed_reports(self) -> list[str]:
        """Return the names of batches with a pending report."""
        return [entry.name for entry in self.staging.glob("outbox/*/*/*")]

    def newest_batch(self) -> Path:
        return max(self.staging.glob("batches/*/*"), key=lambda folder: folder.name)

    def give_up_reports(self) -> None:
        """Give up pending reports as docs/architecture.md describes."""
        for entry in self.staging.glob("outbox/*/*/*"):
            entry.unlink()

    @contextmanager
    def full_staging_disk(self, file: str = "ballast") -> Iterator[None]:
        ballast = self.staging / file
        ballast.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ballast.open("wb", buffering=0) as file:
                for size in (1_000_000, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * size)
            yield
        finally:
            ballast.unlink(missing_ok=True)


def _staging(home: Path) -> Path:
    return home / "staging"


def write_settings(home: Path, changed: dict[str, str]) -> None:
    settings = {"FRAUD_STAGING_URL": str(_staging(home))} | changed
    (home / "product.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


@contextmanager
def open_fault_stack(home: Path, by_hand: bool = True) -> Iterator[FaultStack]:
    """Yield the stack in `home`. Start it unless it runs; stop it only if it was started here."""
    own = Stack(home)
    started = not own.is_up()
    prepare(home, by_hand=by_hand)
    mounted = _mount_small_disk(_staging(home))
    install_breakpoints(own)
    try:
        if started:
            before = os.environ.get("FRAUD_STACK_ENV_FILE")
            os.environ["FRAUD_STACK_ENV_FILE"] = str(home / "product.env")
            try:
                own.up(leave=False)
            finally:
                os.environ.pop("FRAUD_STACK_ENV_FILE")
                if before is not None:
                    os.environ["FRAUD_STACK_ENV_FILE"] = before
        live = FaultStack(own)
        live.recover()
        yield live
        live.close()
        if started:
            require_no_leaks(live)
    finally:
        if started:
            own.down()
            if mounted:
                _as_root("umount", "--lazy", str(_staging(home)))


def prepare(home: Path, *, by_hand: bool) -> None:
    airflow = home / "airflow"
    airflow.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    (airflow / "watchful").touch()
    # A case sends a hundred messages; in a soak a minute brings thousands.
    (airflow / "chunk").write_text("10" if by_hand else "500")
    if by_hand:
        (airflow / "by-hand").touch()
    else:
        (airflow / "by-hand").unlink(missing_ok=True)
    write_settings(home, {})


def _mount_small_disk(folder: Path) -> bool:
    """Mount a small disk. Without root or a sudo without password, tests that fill a disk are skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={STAGING_MB}m,mode=700,uid={os.getuid()},gid={os.getgid()}"
    return folder.is_mount() or _as_root("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))


def _as_root(*words: str) -> bool:
    command = words if os.geteuid() == 0 else ("sudo", "-n", *words)
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
