"""Airflow connections, converted to what the product's modules use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from unittest import mock

import pytest
from airflow.providers.postgres.hooks.postgres import PostgresHook

from fraud_scoring.airflow_connections import aws_access, kafka_config, ledger, staging, use_aws_connection
from include.errors import SettingError
from include.ledger.connection import LedgerConnection
from include.settings import Settings


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with mock.patch.dict(os.environ):
        yield


def test_kafka_connection_gives_librdkafka_config(monkeypatch: pytest.MonkeyPatch):
    extra = {"bootstrap.servers": "broker:9092", "sasl.username": "key"}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": extra}))
    assert kafka_config() == extra


def test_missing_kafka_connection_is_named():
    with pytest.raises(SettingError, match=r"kafka_default does not exist.*AIRFLOW_CONN_KAFKA_DEFAULT"):
        kafka_config()


def test_kafka_connection_without_broker_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": {}}))
    with pytest.raises(SettingError, match=r"kafka_default names no broker.*bootstrap\.servers"):
        kafka_config()


def test_aws_connection_reaches_boto3_and_mlflow(monkeypatch: pytest.MonkeyPatch):
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:9"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    use_aws_connection()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert os.environ["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert os.environ["AWS_ENDPOINT_URL_S3"] == os.environ["MLFLOW_S3_ENDPOINT_URL"] == "http://127.0.0.1:9"


@pytest.mark.parametrize("extra", [{}, {"aws_session_token": "theirs"}])
def test_session_token_of_other_keys_is_removed(extra: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the worker's own")
    use_aws_connection()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key"
    assert os.environ.get("AWS_SESSION_TOKEN") == extra.get("aws_session_token")


def test_aws_connection_without_keys_leaves_them_to_boto3(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": {"region_name": "eu-west-1"}})
    )
    for name, value in {"ACCESS_KEY_ID": "own", "SECRET_ACCESS_KEY": "secret", "SESSION_TOKEN": "token"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    use_aws_connection()
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SESSION_TOKEN"]) == ("own", "token")
    assert os.environ["AWS_REGION"] == "eu-west-1"


def test_without_aws_connection_the_environment_decides():
    use_aws_connection()
    assert not [name for name in os.environ if name.startswith("AWS_ACCESS")]


AWS_CONNECTION = {
    "conn_type": "aws",
    "login": "key",
    "password": "secret",
    "extra": {"region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:9", "aws_session_token": "token"},
}


def test_staging_area_on_s3_does_not_change_the_environment(monkeypatch: pytest.MonkeyPatch):
    """The triggerer calls `late_run` in a process that all DAGs share."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(AWS_CONNECTION))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the process's own")
    before = dict(os.environ)
    storage = staging(Settings(staging_url="s3://bucket/prefix"))
    assert dict(os.environ) == before
    assert storage.url == "s3://bucket/prefix"
    assert "secret" not in repr(aws_access())
    assert "token" not in repr(aws_access())


def test_staging_url_may_have_region_and_endpoint_but_no_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(AWS_CONNECTION | {"extra": {}}))
    staging(Settings(staging_url="s3://bucket/prefix?region=eu-west-1&endpoint_override=127.0.0.1:9&scheme=http"))
    with pytest.raises(SettingError, match=r"FRAUD_STAGING_URL='s3://bucket/p': .*unknown option access_key"):
        staging(Settings(staging_url="s3://bucket/p?access_key=4711&region=eu-west-1"))


def test_ledger_connection_comes_before_the_plain_variable(monkeypatch: pytest.MonkeyPatch):
    connection = {"conn_type": "postgres", "host": "db", "schema": "ledger", "login": "fraud", "password": "p@ss"}
    monkeypatch.setenv("LOGGER_SQL_URI", "postgresql://elsewhere/other")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(connection | {"extra": {"sslmode": "require"}}))
    assert ledger() == LedgerConnection("db", "ledger", 5432, "fraud", "p@ss", {"sslmode": "require"})
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", "postgres://fraud:p%40ss@db:6543/ledger?sslmode=require")
    assert ledger() == LedgerConnection("db", "ledger", 6543, "fraud", "p@ss", {"sslmode": "require"})


def test_plain_variable_names_the_ledger_without_a_connection(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SettingError, match=r"ledger_db does not exist: .*_LEDGER_DB, or set LOGGER_SQL_URI"):
        ledger()
    monkeypatch.setenv("LOGGER_SQL_URI", "postgresql://fraud:secret@db/ledger")
    assert ledger() == LedgerConnection("db", "ledger", 5432, "fraud", "secret")


def test_ledger_connection_without_a_database_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps({"conn_type": "postgres", "host": "db"}))
    with pytest.raises(SettingError, match="ledger_db names no database"):
        ledger()


def test_ledger_behind_a_socket_is_found(monkeypatch: pytest.MonkeyPatch):
    uri = "postgresql://fraud:secret@/ledger?host=/run/postgresql"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", uri)
    assert (
        ledger()
        == LedgerConnection("/run/postgresql", "ledger", 5432, "fraud", "secret")
        == LedgerConnection.from_uri(uri, "it")
    )


def test_password_among_the_ledgers_options_is_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", "postgresql://fraud@db/ledger?password=s3cret")
    message = "the connection ledger_db has password among its options: remove it"
    with pytest.raises(SettingError, match=message) as error:
        ledger()
    assert "s3cret" not in str(error.value)


def test_each_option_of_airflows_hook_is_ignored_or_rejected(monkeypatch: pytest.MonkeyPatch):
    for name in PostgresHook.ignored_extra_options:
        extra = {"conn_type": "postgres", "host": "db", "schema": "ledger", "extra": {name: "given"}}
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(extra))
        try:
            assert ledger() == LedgerConnection("db", "ledger")
        except SettingError as error:
            assert f"has the option {name}, which is not supported" in str(error)  # noqa: PT017


def test_unencoded_password_in_the_ledgers_url_is_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", "postgresql://fraud:1234/s3cret@db/ledger")
    with pytest.raises(
        SettingError, match=r"a database that contains / or @, .*, write / in a password as %2F and @ as %40"
    ) as error:
        ledger()
    assert "s3cret" not in str(error.value)
