"""Airflow's connections as the product's plain modules take them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.errors import SettingError
from include.kafka.connection_extra import to_client_config
from include.ledger.connection import URI_VARIABLE, LedgerConnection
from include.settings import Settings
from include.storage.filesystem import S3Access

if TYPE_CHECKING:
    from include.kafka.cluster import Cluster
    from include.storage.staging import Storage

KAFKA = "kafka_default"
AWS = "aws_default"
SMTP = "smtp_default"
LEDGER = "ledger_db"


def kafka_cluster() -> Cluster:
    """Return the cluster of the connection kafka_default. Raise SettingError if it names no broker or is invalid."""
    # The DAG file imports this module, and must not wait for confluent_kafka.
    from include.kafka.cluster import Cluster

    return Cluster(kafka_config())


def kafka_config() -> dict[str, Any]:
    """Return librdkafka's configuration from the extra of kafka_default. Raise SettingError as `kafka_cluster` does."""
    connection = _connection(KAFKA)
    settings: dict[str, Any] = to_client_config(connection.extra_dejson) if connection else {}
    if not settings.get("bootstrap.servers"):
        raise SettingError(
            f"the connection {KAFKA} {'names no broker' if connection else _absent(KAFKA)}: set it (for instance by "
            f'AIRFLOW_CONN_{KAFKA.upper()}) with "bootstrap.servers" in its "extra"'
        )
    return settings


def aws_access() -> S3Access | None:
    """Return the S3 keys, region and endpoint of the connection aws_default; None if there is no such connection, so
    that the default credential chain of boto3 or Arrow applies."""
    connection = _connection(AWS)
    if connection is None:
        return None
    # boto3 takes a while to import, and an idle run has no use for it.
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: Any = AwsGenericHook(aws_conn_id=AWS)
    given = hook.conn_config
    keys = given.aws_access_key_id, given.aws_secret_access_key, given.aws_session_token
    # A session, which takes a while to make, is needed only for keys that have to be found or asked for.
    if given.role_arn or None in keys[:2]:
        credentials = hook.get_session().get_credentials()
        keys = credentials.get_frozen_credentials() if credentials is not None else (None, None, None)
    key, secret, token = keys[:3] if keys[0] and keys[1] else (None, None, None)
    return S3Access(key, secret, token, hook.region_name or None, given.get_service_endpoint_url("s3") or None)


def use_aws_connection() -> None:
    """Hand the connection aws_default to boto3, for MLflow's artifacts: MLflow lets boto3 read the environment.

    Only for a process of our own, as a task or a command is: the triggerer, which calls `late_run`, is everybody's.
    """
    access = aws_access()
    if access is None:
        return
    if access.access_key and access.secret_key:
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = access.access_key, access.secret_key
        # One that the worker has of its own belongs to other keys.
        os.environ.pop("AWS_SESSION_TOKEN", None)
        if access.session_token:
            os.environ["AWS_SESSION_TOKEN"] = access.session_token
    if access.region:
        os.environ["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"] = access.region
    if access.endpoint:
        os.environ["AWS_ENDPOINT_URL_S3"] = os.environ["MLFLOW_S3_ENDPOINT_URL"] = access.endpoint


def ledger() -> LedgerConnection:
    """The ledger's database: the connection ledger_db, else LOGGER_SQL_URI. Raises SettingError where neither is."""
    connection = _connection(LEDGER)
    if connection is not None:
        return LedgerConnection.from_fields(
            connection.host, connection.schema, connection.port, connection.login, connection.password,
            connection.extra_dejson,
        )  # fmt: skip
    if uri := os.environ.get(URI_VARIABLE, "").strip():
        return LedgerConnection.from_uri(uri, URI_VARIABLE)
    raise SettingError(
        f"the connection {LEDGER} {_absent(LEDGER)}: set it, for instance by AIRFLOW_CONN_{LEDGER.upper()}, or set "
        f"{URI_VARIABLE}. Without a ledger the DAG record_predictions fails"
    )


def require_connection(name: str) -> Connection:
    """Return the connection. Raise SettingError if there is none."""
    connection = _connection(name)
    if connection is None:
        raise SettingError(
            f"the connection {name} {_absent(name)}: set it, for instance by AIRFLOW_CONN_{name.upper()}"
        )
    return connection


def staging(settings: Settings) -> Storage:
    # pyarrow loads numpy, and every parse of the DAG would wait for both.
    from include.storage.staging import Storage

    access = aws_access() if settings.staging_url.startswith("s3:") else None
    return Storage.open(settings.staging_url, access)


def _absent(name: str) -> str:
    """Airflow takes a variable that it cannot read for none."""
    return "cannot be read" if os.environ.get(f"AIRFLOW_CONN_{name.upper()}") else "does not exist"


def _connection(name: str) -> Connection | None:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
