"""Runs the services of the compose file without containers: each in namespaces of its own, with its own command,
environment, user, volumes and health check. What a host name and a path become is the one table below; nothing else is
written otherwise than in the file.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import image as images
from tests.support.compose import OUR_IMAGE, ROOT

# --- the one table ----------------------------------------------------------------------------------------------------
# A host name of the compose file is this machine, in a network of its own; a path of the image is a folder of ours.
# The ledger's PostgreSQL has the port of the other one.
ADDRESS, OTHER_ADDRESSES = "127.0.0.1", {"ledger": "127.0.0.2"}
PYTHON = Path("/home/airflow/.local")  # the image's Python, and what is installed there: .venv
# What Airflow's image says by itself (its Dockerfile), and who runs there.
BASE_ENVIRONMENT = {
    "AIRFLOW_HOME": "/opt/airflow",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    "DUMB_INIT_SETSID": "1",
    "HOME": "/home/airflow",
    "LANG": "C.UTF-8",
    "PATH": f"{PYTHON}/bin:/usr/python/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin",
}
USERS = {"airflow": (50000, 0)}
# Passes signals on, and is not here.
INIT = ["/usr/bin/dumb-init", "--"]
# ----------------------------------------------------------------------------------------------------------------------

Stand = Callable[["Container"], tuple[list[str], dict[str, str]]]
"""For an image that is not ours: the same engine's command, and what its environment lacks."""


class ContainerError(Exception):
    """Says which service, and why."""


def enter_namespaces(folder: Path, hosts: list[str]) -> None:
    """This process, in namespaces of its own already, gets a root folder that it may write to, and a network."""
    root = folder / "root"
    for path in (root, folder / "layer"):
        path.mkdir(parents=True)
    mount("-t", "tmpfs", "tmpfs", folder / "layer")
    for name in ("upper", "work"):
        (folder / "layer" / name).mkdir()
    layers = f"lowerdir=/,upperdir={folder}/layer/upper,workdir={folder}/layer/work"
    mount("-t", "overlay", "overlay", "-o", layers, root)
    for shared in ("/dev", "/sys", "/tmp", str(ROOT)):
        (root / shared[1:]).mkdir(parents=True, exist_ok=True)
        mount("--rbind", shared, root / shared[1:])
    mount("-t", "proc", "proc", root / "proc")
    os.chroot(root)
    os.chdir("/")
    Path("/etc/hosts").write_text(
        "".join(f"{OTHER_ADDRESSES.get(name, ADDRESS)} {name}\n" for name in ["localhost", *hosts])
    )
    with Path("/etc/passwd").open("a") as passwd:
        passwd.writelines(f"{name}:x:{user}:{group}::/home/{name}:\n" for name, (user, group) in USERS.items())
    with socket.socket() as control:
        request = struct.pack("16sh", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS
    PYTHON.mkdir(parents=True, exist_ok=True)
    mount("--bind", sys.prefix, PYTHON)
    os.chown(PYTHON.parent, *USERS["airflow"])


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@dataclass
class Container:
    name: str
    service: Mapping[str, Any]
    folder: Path
    volumes: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return bool(self.service["image"] == OUR_IMAGE)

    @property
    def _home(self) -> str:
        return "/opt/airflow" if self.is_ours else "/"

    def start(self, image: images.Image, stand: Stand | None) -> None:
        environment = {"HOSTNAME": self.name, **dict(self.service["environment"])}
        binds = [(self._volume(one), one.split(":")[1]) for one in self.service.get("volumes", [])]
        as_user: list[str] = []
        if stand is None:
            environment = image.environment | environment
            command = [*image.entrypoint[len(INIT) :], *map(str, self.service["command"])]
            assert image.entrypoint[: len(INIT)] == INIT
            built = self.folder / "image"
            images.build(image, built)
            (built / "opt/airflow/logs").mkdir(parents=True, exist_ok=True)
            user, group = USERS[image.user]
            os.chown(built / "opt/airflow", user, group)
            os.chown(built / "opt/airflow/logs", user, group)
            binds += [(built / "opt" / name, f"/opt/{name}") for name in ("fraud", "airflow")]
            as_user = [
                "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
                # The project and its .venv may lie in folders that only root passes through; to write is another right.
                "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
            ]  # fmt: skip
        else:
            command, more = stand(self)
            environment = {"PATH": BASE_ENVIRONMENT["PATH"], **environment, **more}
        lines = [f"hostname {self.name}"]
        for source, target in binds:
            # Docker makes the place where a volume goes.
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                Path(target).mkdir(exist_ok=True)
            else:
                Path(target).touch()
            lines.append(f"mount --bind {source} {target}")
        self.environment = environment
        script = "\n".join(["set -e", *lines, 'exec "$@"'])
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--uts", "sh", "-c", script, "sh", *as_user,
                 "env", f"--chdir={self._home}", *command],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _volume(self, written: str) -> Path:
        name = written.split(":")[0]
        if name.startswith("."):
            return ROOT / name
        path = self.volumes / name
        path.mkdir(exist_ok=True)
        return path

    def healthy(self) -> bool:
        """As docker asks: the check's own command."""
        kind, *words = self.service["healthcheck"]["test"]
        done = self.run(["sh", "-c", *words] if kind == "CMD-SHELL" else words)
        with self.log.open("a") as output:
            output.write(done.stdout)
        return done.returncode == 0

    def run(self, command: list[str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """In the container, with its environment."""
        assert self.process
        return subprocess.run(
            ["nsenter", f"--target={self.process.pid}", "--mount", "--uts", "--root",
             "env", f"--chdir={self._home}", *command],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=seconds,
        )  # fmt: skip

    def said(self, lines: int = 25) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Project:
    """Starts services as `docker compose up` does: each once what it depends on is as it wants it."""

    def __init__(self, services: Mapping[str, Mapping[str, Any]], stands: Mapping[str, Stand], folder: Path) -> None:
        self.services = services
        self.seconds: dict[str, float] = {}
        self._stands = stands
        self._folder = folder
        self._image = images.read(BASE_ENVIRONMENT)
        self._changed = threading.Condition()
        self._reached: dict[str, set[str]] = {name: set() for name in services}
        self._failure: Exception | None = None
        (folder / "volumes").mkdir()
        (folder / "logs").mkdir()
        self.containers = {
            name: Container(name, service, folder / name, folder / "volumes", folder / "logs" / f"{name}.log")
            for name, service in services.items()
        }

    def up(self, seconds: float) -> None:
        """Until every one is healthy, or done if it is one that ends."""
        threads = [threading.Thread(target=self._bring_up, args=(name, seconds), daemon=True) for name in self.services]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure:
            raise self._failure

    def run(self, name: str, service: Mapping[str, Any], command: list[str], seconds: float) -> tuple[int, str]:
        """As `docker compose run` does: the exit code, and what was said."""
        folder = self._folder
        one = Container(
            name, {**service, "command": command}, folder / name, folder / "volumes", folder / f"{name}.log"
        )
        one.start(self._image, None)
        assert one.process
        return one.process.wait(seconds), one.said()

    def pid(self, name: str) -> int:
        """Of the command itself: whatever started it has become it."""
        process = self.containers[name].process
        assert process
        return process.pid

    def _bring_up(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            self._start(name, deadline)
        except Exception as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _start(self, name: str, deadline: float) -> None:
        service, container = self.services[name], self.containers[name]
        wanted = {need: how["condition"] for need, how in service["depends_on"].items()}

        def ready() -> bool:
            return all(condition in self._reached[need] for need, condition in wanted.items())

        with self._changed:
            self._changed.wait_for(lambda: self._failure or ready(), timeout=max(0, deadline - time.monotonic()))
            if self._failure:
                return
            if not ready():
                raise ContainerError(f"{name}: waits for {wanted} in vain; there is {self._reached}")
        began = time.monotonic()
        container.start(self._image, None if container.is_ours else self._stands[name])
        assert container.process
        ends = service["restart"] == "no"
        while not self._failure:
            code = container.process.poll()
            if code is not None and (code or not ends):
                raise ContainerError(f"{name}: ended with exit code {code}:\n{container.said()}")
            if code == 0:
                break
            if not ends and ("healthcheck" not in service or self._healthy(container)):
                break
            if time.monotonic() > deadline:
                raise ContainerError(f"{name}: not {'done' if ends else 'healthy'} in time:\n{container.said()}")
            time.sleep(1 if container.is_ours else 0.2)  # a check takes its share of the machine
        self.seconds[name] = round(time.monotonic() - began, 1)
        with self._changed:
            self._reached[name].add("service_completed_successfully" if ends else "service_healthy")
            self._changed.notify_all()

    def _healthy(self, container: Container) -> bool:
        stand = self._stands.get(container.name)
        check = getattr(stand, "healthy", None)
        return bool(check()) if check else container.healthy()
