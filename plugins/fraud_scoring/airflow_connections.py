"""Convert Airflow's connections to what `include/` uses, which imports no Airflow."""

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
    # Parsing the DAG file imports this module, and must not wait for confluent_kafka.
    from include.kafka.cluster import Cluster

    return Cluster(kafka_config())


def kafka_config() -> dict[str, Any]:
    """Return librdkafka's configuration from the extra of kafka_default. Raise SettingError as `kafka_cluster` does."""
    connection = _connection(KAFKA)
    settings: dict[str, Any] = to_client_config(connection.extra_dejson) if connection else {}
    if not settings.get("bootstrap.servers"):
        raise SettingError(
            f"the connection {KAFKA} {'names no broker' if connection else _why_missing(KAFKA)}: set it (for instance "
            f'by AIRFLOW_CONN_{KAFKA.upper()}) with "bootstrap.servers" in its "extra"'
        )
    return settings


def aws_access() -> S3Access | None:
    """Return the S3 keys, region and endpoint of the connection aws_default, or None if there is no such connection.

    Without keys the default credential chain of boto3 or Arrow applies.
    """
    connection = _connection(AWS)
    if connection is None:
        return None
    # boto3 takes a while to import, and an idle run does not need it.
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: Any = AwsGenericHook(aws_conn_id=AWS)
    config = hook.conn_config
    keys = config.aws_access_key_id, config.aws_secret_access_key, config.aws_session_token
    # Creating a session takes a while, so it is created only if keys must be looked up or a role must be assumed.
    if config.role_arn or None in keys[:2]:
        credentials = hook.get_session().get_credentials()
        keys = credentials.get_frozen_credentials() if credentials is not None else (None, None, None)
    key, secret, token = keys[:3] if keys[0] and keys[1] else (None, None, None)
    return S3Access(key, secret, token, hook.region_name or None, config.get_service_endpoint_url("s3") or None)


def use_aws_connection() -> None:
    """Put the connection aws_default into the environment, where boto3 reads it when MLflow loads artifacts.

    Call it in a process of our own, such as a task or a command, and not in the triggerer, which all DAGs share.
    """
    access = aws_access()
    if access is None:
        return
    if access.access_key and access.secret_key:
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = access.access_key, access.secret_key
        # A token from the worker's environment belongs to other keys.
        os.environ.pop("AWS_SESSION_TOKEN", None)
        if access.session_token:
            os.environ["AWS_SESSION_TOKEN"] = access.session_token
    if access.region:
        os.environ["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"] = access.region
    if access.endpoint:
        os.environ["AWS_ENDPOINT_URL_S3"] = os.environ["MLFLOW_S3_ENDPOINT_URL"] = access.endpoint


def ledger() -> LedgerConnection:
    """Return the ledger's database, from the connection ledger_db or else LOGGER_SQL_URI.

    Raise SettingError if both are missing, or if the one that is used is invalid.
    """
    connection = _connection(LEDGER)
    if connection is not None:
        return LedgerConnection.from_fields(
            connection.host, connection.schema, connection.port, connection.login, connection.password,
            connection.extra_dejson,
        )  # fmt: skip
    if uri := os.environ.get(URI_VARIABLE, "").strip():
        return LedgerConnection.from_uri(uri, URI_VARIABLE)
    raise SettingError(
        f"the connection {LEDGER} {_why_missing(LEDGER)}: set it, for instance by AIRFLOW_CONN_{LEDGER.upper()}, or "
        f"set {URI_VARIABLE}. Without a ledger the DAG record_predictions fails"
    )


def require_connection(name: str) -> Connection:
    """Return the connection. Raise SettingError if there is none."""
    connection = _connection(name)
    if connection is None:
        raise SettingError(
            f"the connection {name} {_why_missing(name)}: set it, for instance by AIRFLOW_CONN_{name.upper()}"
        )
    return connection


def staging(settings: Settings) -> Storage:
    """Return the staging area. Raise SettingError or StagingError as `Storage.open` does."""
    # pyarrow imports numpy, and every parse of the DAG file would wait for both.
    from include.storage.staging import Storage

    access = aws_access() if settings.staging_url.startswith("s3:") else None
    return Storage.open(settings.staging_url, access)


def _why_missing(name: str) -> str:
    """Return why Airflow finds no such connection: it also ignores an environment variable that it cannot parse."""
    return "cannot be read" if os.environ.get(f"AIRFLOW_CONN_{name.upper()}") else "does not exist"


def _connection(name: str) -> Connection | None:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
