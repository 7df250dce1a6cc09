"""What the schema of the Compose specification does not see: rules of docker-compose.yaml, as a list of offences.

Every environment name of every service is written down here once more, by what it is for, so that none in the file can
be changed, dropped or added alone; and each one here must be one that somebody reads, so that both cannot share a slip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from include.deployment import connection_variables, env_writer
from include.settings import Settings
from tests.support.compose import ROOT, interpolated_variables, own_services

SECRET = re.compile(r"PASSWORD|SECRET|_KEY$")


class _Asked(dict[str, str]):
    """Notes which names are asked for."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__(given)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)


def _read_by_connections() -> set[str]:
    full = {
        "KAFKA_BOOTSTRAP_SERVERS": "k:1", "SASL_USERNAME": "u", "SASL_PASSWORD": "p",
        "SMTP_SERVER": "s", "SMTP_USER": "u", "SMTP_PASSWORD": "p", "SMTP_FROM": "a@x",
        "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
    }  # fmt: skip
    asked = _Asked(full)
    connection_variables.kafka(asked), connection_variables.smtp(asked), connection_variables.aws(asked)
    return asked.names


# The image sets AIRFLOW_HOME.
SETTINGS = {Settings.variable(name) for name in Settings.model_fields} - {"AIRFLOW_HOME"}
_PLAIN = _read_by_connections()
KAFKA = {name for name in _PLAIN if name.startswith(("KAFKA_", "SASL_", "COMPOSE_"))} | {"AIRFLOW_CONN_KAFKA_DEFAULT"}
MAIL = {name for name in _PLAIN if name.startswith(("SMTP_", "COMPOSE_"))} | {"AIRFLOW_CONN_SMTP_DEFAULT"}
# boto3, for whom the region has another name, runs without Airflow too.
S3 = {name for name in _PLAIN if name.startswith("AWS_")} | {"AIRFLOW_CONN_AWS_DEFAULT", "AWS_DEFAULT_REGION"}
LEDGER = {"AIRFLOW_CONN_LEDGER_DB", "LOGGER_SQL_URI", "LEDGER_DB_PASSWORD"}
MLFLOW = {"MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"}
AIRFLOW = {
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__AUTH_MANAGER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__LOGGING__REMOTE_LOGGING",
    "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER",
    "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID",
    "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS",
}
DATABASE = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    "PGPASSWORD",
    "AIRFLOW__CORE__FERNET_KEY",
}
CELERY = {
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT",
    "VALKEY_PASSWORD",
}
PIPELINE = SETTINGS | KAFKA | S3 | MAIL | LEDGER | MLFLOW | AIRFLOW
# Of failed and late runs: they mail, and note on S3 that they did.
CALLBACKS = SETTINGS | S3 | MAIL | AIRFLOW

NEEDS: dict[str, set[str]] = {
    "topics": SETTINGS | KAFKA,
    "producer": SETTINGS | KAFKA,
    "first-model": SETTINGS | S3 | MLFLOW,
    "mlflow": S3
    | {
        "MLFLOW_BACKEND_STORE_URI",
        "PGPASSWORD",
        "MLFLOW_SERVER_ALLOWED_HOSTS",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        "MLFLOW_DISABLE_TELEMETRY",
    },
    "ledger-init": LEDGER,
    "airflow-init": AIRFLOW | DATABASE | {"AIRFLOW_ADMIN_PASSWORD"},
    # It reads logs on S3.
    "airflow-apiserver": S3 | AIRFLOW | DATABASE | {"AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"},
    "airflow-scheduler": AIRFLOW
    | DATABASE
    | CELERY
    | {
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__CELERY__SYNC_PARALLELISM",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL",
        "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL",
    },
    "airflow-dag-processor": CALLBACKS | DATABASE | {"AIRFLOW__LOGGING__DAG_PROCESSOR_LOG_TARGET"},
    "airflow-triggerer": CALLBACKS | DATABASE,
    "airflow-history": SETTINGS | AIRFLOW | DATABASE,
    # Whoever may write a model may run code here: nothing of Airflow's database, and none of its keys.
    "airflow-worker": PIPELINE
    | CELERY
    | {"CELERY_BROKER_URL", "DUMB_INIT_SETSID", "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"},
    "cli": PIPELINE | DATABASE | CELERY,
    # What the images that are not ours document.
    "kafka": {
        f"KAFKA_{name}"
        for name in (
            "PROCESS_ROLES", "NODE_ID", "LISTENERS", "ADVERTISED_LISTENERS", "LISTENER_SECURITY_PROTOCOL_MAP",
            "INTER_BROKER_LISTENER_NAME", "CONTROLLER_LISTENER_NAMES", "CONTROLLER_QUORUM_VOTERS", "LOG_DIRS",
            "AUTO_CREATE_TOPICS_ENABLE", "OFFSETS_TOPIC_REPLICATION_FACTOR", "OFFSETS_RETENTION_MINUTES", "HEAP_OPTS",
            "TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "TRANSACTION_STATE_LOG_MIN_ISR",
            "GROUP_INITIAL_REBALANCE_DELAY_MS",
        )
    },
    "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    | {f"WEED_JWT_{name}_KEY" for name in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")},
    "mail": {"MP_DATABASE"},
    "postgres": {
        "POSTGRES_PASSWORD",
        "POSTGRES_INITDB_ARGS",
        "AIRFLOW_DB_PASSWORD",
        "MLFLOW_DB_PASSWORD",
    },
    "ledger": {"POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS", "LEDGER_DB_PASSWORD"},
    "valkey": {"VALKEY_PASSWORD"},
}  # fmt: skip


@cache
def documented(root: Path = ROOT) -> set[str]:
    return set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (root / ".env.example").read_text(), re.MULTILINE))


def offences(file: Mapping[str, Any]) -> list[str]:
    return [*_environment(file), *_variables(file), *_order(file), *_form(file)]


def _environment(file: Mapping[str, Any]) -> Iterator[str]:
    services = file["services"]
    if set(services) != set(NEEDS):
        yield f"services {set(services) ^ set(NEEDS)}"
    for name, needed in NEEDS.items():
        there = set(services.get(name, {}).get("environment", {}))
        if missing := needed - there:
            yield f"{name}: lacks {sorted(missing)}"
        if more := there - needed:
            yield f"{name}: has {sorted(more)}, which it does not need"


def _variables(file: Mapping[str, Any]) -> Iterator[str]:
    """What is put in from .env."""
    services = file["services"]
    used = {(name, how) for one in services.values() for name, how in interpolated_variables(one)}
    passed = {name for one in services.values() for name, value in one.get("environment", {}).items() if value is None}
    known = documented()
    if unknown := ({name for name, _ in used} | passed) - known:
        yield f".env.example does not name {sorted(unknown)}"
    written = set(env_writer.LOCAL_SETTINGS) | set(env_writer.generate_secrets("local"))
    if absent := {name for name, how in used if how == "?"} - written:
        yield f"needed, but `fraud env` does not write {sorted(absent)}"
    if useless := written - {name for name, _ in used} - passed:
        yield f"`fraud env` writes {sorted(useless)}, which nothing takes"
    for name, how in used:
        if SECRET.search(name) and how != "?":
            yield f"{name}: a secret with a default, or one that may be forgotten"


def _order(file: Mapping[str, Any]) -> Iterator[str]:
    services = file["services"]
    once = {name for name, one in services.items() if one["restart"] == "no"}
    awaited = set()
    for name, one in services.items():
        for need, how in one.get("depends_on", {}).items():
            if need not in services:
                yield f"{name}: depends on {need}, which is no service"
                continue
            yield from (f"{name}: {problem} {need}" for problem in _need(one, services[need], how))
            if name not in once:
                awaited.add(need)
    # `up --wait` takes one that ended for a failure unless another awaits its end.
    if unheeded := once - awaited - {"cli"}:
        yield f"nobody waits for the end of {sorted(unheeded)}"
    for name in set(services) - once - {"producer", "airflow-history"}:  # nobody waits for these
        if "healthcheck" not in services[name]:
            yield f"{name}: has no health check"


def _need(one: Mapping[str, Any], other: Mapping[str, Any], how: Mapping[str, Any]) -> Iterator[str]:
    if how["condition"] == "service_healthy" and "healthcheck" not in other:
        yield "waits for the health, of which there is no check, of"
    if (how["condition"] == "service_completed_successfully") != (other["restart"] == "no"):
        yield "waits in the wrong way for"
    alone = other.get("profiles") and not set(one.get("profiles", [])) & set(other["profiles"])
    if alone and how.get("required", True):
        yield "cannot start where the profile leaves out"


def _form(file: Mapping[str, Any]) -> Iterator[str]:
    services = file["services"]
    for name, one in services.items():
        yield from (f"{name}: {problem}" for problem in _service(name, one))
    volumes = [volume for one in services.values() for volume in one.get("volumes", [])]
    used = {volume.split(":")[0] for volume in volumes if not volume.startswith(".")}
    if used != set(file["volumes"]):
        yield f"volumes {sorted(used ^ set(file['volumes']))}: declared or used alone"
    built = [name for name, one in own_services(file).items() if "build" in one]
    if len(built) != 1:
        yield f"the image is built by {built}, and one is enough"


def _service(name: str, one: Mapping[str, Any]) -> Iterator[str]:
    if one["image"].rpartition(":")[2] in ("latest", one["image"]):
        yield f"{one['image']} is not pinned"
    if "container_name" in one or (name == "airflow-worker" and "ports" in one):
        yield "a fixed name or port cannot be scaled"
    yield from (f"port {port} is open to others" for port in one.get("ports", []) if not port.startswith("127.0.0.1:"))
    bound = [volume.split(":")[0] for volume in one.get("volumes", []) if volume.startswith(".")]
    yield from (f"{path} does not exist" for path in bound if not (ROOT / path).exists())
    if "no-new-privileges:true" not in one["security_opt"]:
        yield "may gain privileges"
    # Which of them SeaweedFS's image needs at its start could not be tried.
    if name != "s3" and one.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if name != "cli" and not {"memory", "pids"} <= set(one["deploy"]["resources"]["limits"]):
        yield "has no limits"
