"""A running stack, with what tests need of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from psycopg2.extensions import connection

from dev.airflow_api import AirflowApi
from dev.stack import Stack, postgres, processes
from dev.stack.home import StackHome
from include.kafka.client_config import ClientConfig, read_client_config
from include.kafka.cluster import Cluster
from include.ledger.connection import LedgerConnection
from include.ledger.schema import migrate


class LiveStack:
    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.home = stack.home.path
        self.env = stack.env

    @property
    def bootstrap_servers(self) -> str:
        return self.env["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def kafka(self) -> ClientConfig:
        """Return a client configuration."""
        return read_client_config(self.env)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.kafka)

    @property
    def mlflow_uri(self) -> str:
        return self.env["MLFLOW_TRACKING_URI"]

    @property
    def maildir(self) -> Path:
        return Path(self.env["MAILDIR"])

    @cached_property
    def airflow(self) -> AirflowApi:
        return AirflowApi(self.env)

    def database(self, name: str, server: str = "postgres") -> closing[connection]:
        """Connect to a database as PostgreSQL's superuser."""
        home = StackHome(self.home)
        home.create([])
        return closing(postgres.connect(home, name, server))

    @property
    def ledger(self) -> LedgerConnection:
        return LedgerConnection.from_environment(self.env)

    @contextmanager
    def own_ledger(self, copy_of: LedgerConnection | None = None) -> Iterator[LedgerConnection]:
        """Yield a ledger of the test's own with its tables, or a copy of another one."""
        name = f"test_{uuid4().hex[:8]}"
        with self.database("postgres", postgres.LEDGER) as server:
            server.autocommit = True
            template = f"TEMPLATE {copy_of.database}" if copy_of else ""
            server.cursor().execute(f"CREATE DATABASE {name} OWNER {postgres.LEDGER} {template}")
        address = replace(self.ledger, database=name)
        migrate(address)
        yield address
        # Anew: a test may have stopped the server.
        with self.database("postgres", postgres.LEDGER) as server:
            server.autocommit = True
            server.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """Freeze a part: its processes stay connected but do not answer."""
        family = processes.find(StackHome(self.home), [part])
        assert family
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def start(self, part: str) -> None:
        self._stack.start(part)

    def stop(self, part: str) -> None:
        self._stack.stop(part)

    def kill(self, part: str) -> None:
        self._stack.kill(part)

    def pid(self, part: str) -> int:
        return next(row.pid for row in self._stack.status() if row.name == part and row.pid)

    def close(self) -> None:
        if "airflow" in self.__dict__:
            self.airflow.close()
