"""Run Airflow's four processes as a small production has them: PostgreSQL, a login, LocalExecutor or CeleryExecutor."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import sys
import threading
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from dev.airflow_api import AirflowApi
from dev.stack import mail, postgres, s3, valkey
from dev.stack.certificates import certificates
from dev.stack.home import LOOPBACK, StackHome, write_private
from dev.stack.kafka import Kafka
from dev.stack.mail import MailCatcher
from dev.stack.mlflow import Mlflow
from dev.stack.part import ROOT, Part, Say
from dev.stack.postgres import LedgerDatabase
from dev.stack.stack_settings import product_settings

USER = "admin"
PRELOAD = """\
from include.preload import preload

preload()
"""
_CONNECTION = "AIRFLOW_CONN_"
_migration_lock = threading.Lock()


class ApiServer(Part):
    """Run Airflow's API server."""

    name = "api-server"
    ports: tuple[str, ...] = ("airflow",)
    needs = ("postgres",)
    arguments: tuple[str, ...] = ()
    component = "metadatabase"

    def prepare(self, home: StackHome, say: Say) -> None:
        """Write the login and create Airflow's tables, once for each version."""
        folder = airflow_home(home)
        with _migration_lock:
            write_private(folder / "passwords.json", json.dumps({USER: home.secret("airflow")}))
            stamp = folder / f"migrated-{importlib.metadata.version('apache-airflow')}"
            if not stamp.exists():
                say("creating Airflow's tables")
                self.run_once(home, [sys.executable, "-m", "airflow", "db", "migrate"])
                stamp.touch()

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        return [sys.executable, "-m", "airflow", self.name, *self.arguments]

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return Airflow's environment; in a secure stack without connections, which the database holds."""
        found = environment(home)
        if not home.options.secure:
            return found
        return {name: value for name, value in found.items() if not name.startswith(_CONNECTION)}

    def set_up(self, home: StackHome) -> None:
        """Store the connections in Airflow's database, where they are encrypted; in a secure stack only."""
        if self.name != ApiServer.name or not home.options.secure:
            return
        found = environment(home)
        api = AirflowApi(found)
        for name, value in found.items():
            if name.startswith(_CONNECTION):
                api.set_connection(name.removeprefix(_CONNECTION).lower(), json.loads(value))
        api.close()

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return Airflow's whole environment."""
        return environment(home)

    def check(self, home: StackHome, started: float) -> None:
        """Ask the API server for the component's health. Raises OSError unless it is healthy since `started`."""
        with urllib.request.urlopen(f"http://{home.address('airflow')}/api/v2/monitor/health", timeout=5) as answer:
            health = json.load(answer)[self.component]
        if health["status"] != "healthy":
            raise OSError(f"{self.component} is {health['status']}")
        if self.component != "metadatabase":
            # Airflow still reports a process as healthy that was stopped a moment ago.
            heartbeat = datetime.fromisoformat(health[f"latest_{self.component}_heartbeat"]).timestamp()
            if heartbeat < started:
                raise OSError("no heartbeat yet")


class Scheduler(ApiServer):
    """Run the scheduler, which runs the tasks unless Celery does."""

    # Logs are read from the disk. The log server would listen on all addresses.
    name, component, ports, arguments = "scheduler", "scheduler", (), ("--skip-serve-logs",)

    def prepare(self, home: StackHome, say: Say) -> None:
        """Write the site settings that preload imports, unless Celery's workers run the tasks."""
        super().prepare(home, say)
        if not home.options.celery:  # with Celery, the workers run the tasks
            write_site_settings(airflow_home(home))


class DagProcessor(ApiServer):
    """Run the DAG processor."""

    name, component, ports = "dag-processor", "dag_processor", ()


class Triggerer(ApiServer):
    """Run the triggerer."""

    name, component, ports, arguments = "triggerer", "triggerer", (), ("--skip-serve-logs",)


def write_site_settings(airflow_home: Path) -> None:
    """Write the file that makes Airflow preload imports, unless another file is there."""
    settings = airflow_home / "config" / "airflow_local_settings.py"
    # Tests write their own file.
    if not settings.exists():
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(PRELOAD)


def airflow_home(home: StackHome) -> Path:
    """Return Airflow's folder."""
    return home.data("airflow")


def environment(home: StackHome) -> dict[str, str]:
    """Return the variables for Airflow, and for each shell that reads `stack.env`."""
    api = f"http://{home.address('airflow')}"
    folder = airflow_home(home)
    others = (s3.S3(), Kafka(), Mlflow(), MailCatcher(), LedgerDatabase())
    options = {
        "CORE__DAGS_FOLDER": ROOT / "dags",
        "CORE__PLUGINS_FOLDER": ROOT / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 8,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": True,
        "CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes.fromhex(home.secret("fernet"))).decode(),
        "CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{folder}/passwords.json",
        "DATABASE__SQL_ALCHEMY_CONN": postgres.url(home, "airflow"),
        "DATABASE__SQL_ALCHEMY_CONN_ASYNC": postgres.url(home, "airflow", "asyncpg"),
        "API__HOST": LOOPBACK,
        "API__PORT": home.port("airflow"),
        "API__BASE_URL": api,
        "API__WORKERS": 1,
        "API__SECRET_KEY": home.secret("session"),
        "API_AUTH__JWT_SECRET": home.secret("jwt"),
        "API__EXPOSE_CONFIG": False,
        # docs/configuration.md describes these settings.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.1,
        # Airflow notices after one minute, not five, that a task's worker was killed.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 5,
        # Only this check finds tasks that a killed scheduler left queued; its default is five minutes.
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 15,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 10,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 10,
        "LOGGING__BASE_LOG_FOLDER": f"{folder}/logs",
    }
    assumed = {"FRAUD_CONFIRMED_URL": f"s3://{s3.BUCKETS[1]}/confirmed"}
    if home.options.celery or home.options.secure:
        assumed["FRAUD_STAGING_URL"] = f"s3://{s3.BUCKETS[1]}/fraud"
    if home.options.celery:
        options |= _celery(home)
        assumed["FRAUD_SHARDS"] = "2"
    return {
        **{f"AIRFLOW__{name}": str(value) for name, value in options.items()},
        **{name: value for part in others for name, value in part.exports(home).items()},
        **_connections(home),
        **product_settings(assumed),
        # Python's ssl, and so mail, trusts this authority.
        **({"SSL_CERT_FILE": str(certificates(home).authority)} if home.options.secure else {}),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_URL": api,
        "AIRFLOW_USERNAME": USER,
        "AIRFLOW_PASSWORD": home.secret("airflow"),
        "PYTHONPATH": str(ROOT),
    }


def _celery(home: StackHome) -> dict[str, object]:
    """Return the options for workers that share no disk. docs/configuration.md explains each."""
    return {
        "CORE__EXECUTOR": "CeleryExecutor",
        "CELERY__BROKER_URL": valkey.url(home),
        "CELERY__RESULT_BACKEND": f"db+{postgres.url(home, 'airflow')}",
        "CELERY__WORKER_CONCURRENCY": 2,
        "CELERY__SYNC_PARALLELISM": 1,
        "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": 900,
        # A task is sent again if a worker or the broker lost its message before it began, and more often than twice.
        "SCHEDULER__TASK_QUEUED_TIMEOUT": 60,
        "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 15,
        "SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": 20,
        "LOGGING__REMOTE_LOGGING": True,
        "LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{s3.LOGS}",
        "LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        "LOGGING__DELETE_LOCAL_LOGS": True,
    }


def _connections(home: StackHome) -> dict[str, str]:
    secure = home.options.secure
    login = {"login": mail.USER, "password": home.secret("smtp")} if secure else {}
    smtp = {
        # Without disable_tls Airflow uses STARTTLS.
        **({} if secure else {"disable_tls": True}),
        "disable_ssl": True,
        "from_email": "fraud-scoring@example.com",
        "timeout": 10,
        "retry_limit": 1,
    }
    connections = {
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": Kafka.client(home)},
        "SMTP_DEFAULT": {"conn_type": "smtp", "host": LOOPBACK, "port": home.port("smtp"), **login, "extra": smtp},
        "AWS_DEFAULT": {
            "conn_type": "aws",
            "login": s3.ACCESS_KEY,
            "password": home.secret("s3"),
            "extra": {
                "region_name": s3.REGION,
                "service_config": {"s3": {"endpoint_url": f"http://{home.address('s3')}"}},
            },
        },
    }
    return {f"{_CONNECTION}{name}": json.dumps(connection) for name, connection in connections.items()}
