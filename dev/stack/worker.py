"""Celery workers that share no disk: each has a home, a model cache and logs of its own, as on a machine of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack import airflow, valkey
from dev.stack.home import Home
from dev.stack.part import Part, Say

# What only the scheduler and the API server need: tasks talk to the latter, with a token that comes with each.
_NOT_FOR_WORKERS = (
    "AIRFLOW__API_AUTH__", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__CORE__SIMPLE_AUTH",
    "AIRFLOW__DATABASE__", "AIRFLOW_PASSWORD",
)  # fmt: skip


class Worker(Part):
    needs = ("valkey", "postgres", "s3", "api-server")
    option = "celery"

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, home: Home, say: Say) -> None:
        airflow.write_site_settings(home.data(self.name))

    def command(self, home: Home) -> list[str]:
        # Logs are read from S3: the server for them would listen on every address.
        return [sys.executable, "-m", "airflow", "celery", "worker", "-H", self.name, "--skip-serve-logs"]

    def environment(self, home: Home) -> Mapping[str, str]:
        folder = home.data(self.name)
        own = {"AIRFLOW_HOME": str(folder), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs")}
        shared = airflow.environment(home).items()
        return {name: value for name, value in shared if not name.startswith(_NOT_FOR_WORKERS)} | own

    def check(self, home: Home, started: float) -> None:
        from celery import Celery  # not above: stacks without it, and every command, would pay for it

        # As `celery inspect ping` asks it, without the seconds that Airflow's import would take.
        with Celery(broker=valkey.url(home), set_as_current=False) as asking:
            if not asking.control.ping(destination=[f"celery@{self.name}"], timeout=1):
                raise OSError("does not answer")


WORKERS = (Worker("worker-1"), Worker("worker-2"))
