"""Celery workers that share no disk: each has a home, a model cache and logs of its own, as on a machine of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack import airflow, valkey
from dev.stack.home import Home
from dev.stack.part import Part, Say


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
        return airflow.environment(home) | own

    def check(self, home: Home, started: float) -> None:
        from celery import Celery  # not above: stacks without it, and every command, would pay for it

        # As `celery inspect ping` asks it, without the seconds that Airflow's import would take.
        with Celery(broker=valkey.url(home), set_as_current=False) as asking:
            if not asking.control.ping(destination=[f"celery@{self.name}"], timeout=1):
                raise OSError("does not answer")


WORKERS = (Worker("worker-1"), Worker("worker-2"))
