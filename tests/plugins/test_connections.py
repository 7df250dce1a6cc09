from __future__ import annotations

import json
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from fraud_scoring.connections import kafka_settings, use_aws_connection
from include.errors import SettingError


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with mock.patch.dict(os.environ):
        yield


def test_kafka_connection_gives_librdkafka_settings(monkeypatch: pytest.MonkeyPatch):
    extra = {"bootstrap.servers": "broker:9092", "sasl.username": "key"}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": extra}))
    assert kafka_settings() == extra


def test_missing_kafka_connection_is_named():
    with pytest.raises(SettingError, match=r"kafka_default does not exist.*AIRFLOW_CONN_KAFKA_DEFAULT"):
        kafka_settings()


def test_kafka_connection_without_broker_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": {}}))
    with pytest.raises(SettingError, match=r"kafka_default names no broker.*bootstrap\.servers"):
        kafka_settings()


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
def test_a_token_of_other_keys_is_not_used(extra: dict[str, str], monkeypatch: pytest.MonkeyPatch):
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
