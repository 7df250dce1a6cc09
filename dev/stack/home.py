"""Keep the stack's folder: data, logs, ports, secrets, and the files through which its processes communicate."""

from __future__ import annotations

import base64
import json
import os
import random
import shlex
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dev.stack.stack_errors import StackError
from include.deployment.secret import fernet_key, secret

LOOPBACK = "127.0.0.1"
# Below the ephemeral ports of Linux and macOS: an outgoing connection could hold one of those at a restart.
PORTS = range(20_000, 32_000)
SECRETS = (
    "postgres", "ledger", "ledger_user", "s3", "s3_internal", "airflow", "fernet", "jwt", "session", "kafka_admin",
    "kafka", "smtp", "valkey",
)  # fmt: skip
LEAST_FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Options:
    """Choose what a stack is like. The choice is made when its folder is created."""

    celery: bool = False
    """Tasks run on Celery workers that share no disk, instead of the scheduler's own processes."""
    secure: bool = False
    """Kafka and mail are encrypted and require a login; ACLs limit what a user may do on Kafka."""

    def __str__(self) -> str:
        """Return the chosen options, or "plain"."""
        return ", ".join(name for name, chosen in asdict(self).items() if chosen) or "plain"


class StackHome:
    """Hold the paths, ports and secrets of one stack."""

    def __init__(self, path: Path | str) -> None:
        """Take the folder. No file is written."""
        self.path = Path(path).expanduser().absolute()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.environment_file = self.path / "stack.env"
        self._ports: dict[str, int] = {}
        self._secrets: dict[str, str] = {}

    def make_folders(self) -> None:
        """Create the folder, for this user only. Raises StackError if it cannot be written."""
        with self._disk_errors():
            for folder in (self.path, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)

    def create(self, port_names: Iterable[str]) -> None:
        """Create the folder, and choose a port for each name and every secret; later calls keep them.

        Raises StackError if less than 2 GB are free or the folder cannot be written.
        """
        self.make_folders()
        free = shutil.disk_usage(self.path).free
        if free < LEAST_FREE_BYTES:
            need = f"{LEAST_FREE_BYTES / 1024**3:.0f} GB"
            raise StackError("disk", f"{free / 1024**3:.1f} GB free at {self.path}, the stack needs {need}")
        with self._disk_errors():
            self._ports = self._kept("ports.json", dict.fromkeys(port_names, 0))
            self._secrets = self._kept("secrets.json", new_secrets())

    @cached_property
    def options(self) -> Options:
        """Return the options that the folder was created with."""
        path = self.path / "options.json"
        return Options(**json.loads(path.read_text())) if path.exists() else Options()

    def choose(self, options: Options) -> None:
        """Store the options. Raises StackError if the folder holds a stack with others."""
        path = self.path / "options.json"
        if (self.path / "ports.json").exists() and self.options != options:
            problem = f"{self.path} holds a stack that is {self.options}, not {options}: remove the folder"
            raise StackError("stack", problem)
        if options != self.options:
            write_private(path, json.dumps(asdict(options)))
            del self.options

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StackError("disk", f"cannot write {error.filename or self.path}: {error.strerror}") from error

    def _kept(self, name: str, fresh: dict[str, Any]) -> dict[str, Any]:
        path = self.path / name
        kept = json.loads(path.read_text()) if path.exists() else {}
        values = fresh | kept
        for key in [key for key, value in values.items() if value == 0]:
            values[key] = _free_port(taken=values.values())
        if values != kept:
            write_private(path, json.dumps(values, indent=1))
        return values

    def port(self, name: str) -> int:
        """Return the port of this name."""
        return self._ports[name]

    def secret(self, name: str) -> str:
        """Return the secret of this name."""
        return self._secrets[name]

    def address(self, port_name: str) -> str:
        """Return host and port."""
        return f"{LOOPBACK}:{self.port(port_name)}"

    def data(self, part: str) -> Path:
        """Return the data folder of a part. It is created if it is missing."""
        folder = self.path / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, part: str) -> Path:
        """Return the path of a part's log."""
        return self.logs / f"{part}.log"

    def lock(self, name: str = "supervisor") -> FileLock:
        """Return a lock, held until it is closed or its holder dies; None while another process holds it."""
        self.run.mkdir(parents=True, exist_ok=True)
        return FileLock(self.run / f"{name}.lock", on_acquired=_write_process_id)

    def supervisor(self) -> int | None:
        """Return the supervisor's process id, or None while none runs."""
        if not self.run.exists():
            return None
        try:
            with self.lock().acquire(blocking=False):
                return None
        except Timeout:
            return int((self.run / "supervisor.lock").read_text() or 0) or None

    def read_state(self) -> dict[str, Any]:
        """Return what the supervisor wrote last, empty before."""
        try:
            state: dict[str, Any] = json.loads((self.run / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Store the state of all parts."""
        write_private(self.run / "state.json", json.dumps(state, indent=1))

    def write_reply(self, reply: Mapping[str, str]) -> None:
        """Store the supervisor's reply to a request."""
        write_private(self.run / "reply.json", json.dumps(reply))

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Store `stack.env`, quoted for a shell."""
        write_private(
            self.environment_file,
            "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())),
        )

    def read_environment(self) -> dict[str, str]:
        """Return the variables of `stack.env`, empty while no stack is up."""
        text = self.environment_file.read_text() if self.environment_file.exists() else ""
        pairs = (word.partition("=") for word in shlex.split(text, comments=True))
        return {name: value for name, _, value in pairs}


def new_secrets() -> dict[str, str]:
    """Return a new value for each of SECRETS; `fernet` is the key's 32 bytes in hexadecimal."""
    return {name: secret(64) for name in SECRETS} | {"fernet": base64.urlsafe_b64decode(fernet_key()).hex()}


def _write_process_id(lock: int) -> None:
    """Lock a file and write this process's id into it. Return None while another process holds the lock."""
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step. At no time can other users read it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port(taken: Iterable[int]) -> int:
    candidates = [port for port in random.sample(PORTS, 500) if port not in set(taken)]
    for port in candidates:
        if is_free(port):
            return port
    raise StackError("ports", f"no free port found between {PORTS.start} and {PORTS.stop}")
