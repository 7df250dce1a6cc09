"""Run Celery workers that share no disk: each has its own Airflow home, model cache and logs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack import airflow, valkey
from dev.stack.home import StackHome
from dev.stack.part import Part, Say

# Only scheduler and API server need these. A task calls the API server with its own token.
_NOT_FOR_WORKERS = (
    "AIRFLOW__API_AUTH__", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__CORE__SIMPLE_AUTH",
    "AIRFLOW__DATABASE__", "AIRFLOW_PASSWORD",
)  # fmt: skip


class Worker(Part):
    """Run one Celery worker."""

    needs = ("valkey", "postgres", "s3", "api-server")
    option = "celery"

    def __init__(self, name: str) -> None:
        """Take the worker's name, which is also its host name in Celery."""
        self.name = name

    def prepare(self, home: StackHome, say: Say) -> None:
        """Write the site settings that preload imports."""
        airflow.write_site_settings(home.data(self.name))

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        # Logs are read from S3. The log server would listen on all addresses.
        return [sys.executable, "-m", "airflow", "celery", "worker", "-H", self.name, "--skip-serve-logs"]

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return Airflow's environment without the secrets of scheduler and API server."""
        folder = home.data(self.name)
        own = {"AIRFLOW_HOME": str(folder), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs")}
        shared = airflow.environment(home).items()
        return {name: value for name, value in shared if not name.startswith(_NOT_FOR_WORKERS)} | own

    def check(self, home: StackHome, started: float) -> None:
        """Ping the worker through the broker. Raises OSError if it does not answer within a second."""
        from celery import Celery  # imported here: only stacks with Celery need it

        # The request of `celery inspect ping`, without the seconds that importing Airflow takes.
        with Celery(broker=valkey.url(home), set_as_current=False) as asking:
            if not asking.control.ping(destination=[f"celery@{self.name}"], timeout=1):
                raise OSError("the worker does not answer to a ping")


WORKERS = (Worker("worker-1"), Worker("worker-2"))
