from __future__ import annotations

import json
import socket

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from include.errors import SettingError
from include.kafka.client_config import (
    consumer_config,
    producer_config,
    read_client_config,
    transactional_config,
)
from include.kafka.client_errors import describe_error

CONFLUENT = {
    "bootstrap.servers": "broker:9092",
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "key",
    "sasl.password": "secret",
}


def test_json_connection_yields_its_extra():
    connection = json.dumps({"conn_type": "kafka", "extra": CONFLUENT})
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection}) == CONFLUENT


def test_extra_may_be_json_inside_json():
    connection = json.dumps({"conn_type": "kafka", "extra": json.dumps(CONFLUENT)})
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection}) == CONFLUENT


def test_uri_connection_yields_its_query():
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": "kafka://?bootstrap.servers=broker%3A9092"}) == {
        "bootstrap.servers": "broker:9092"
    }


def test_bootstrap_servers_alone_are_enough():
    assert read_client_config({"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"}) == {"bootstrap.servers": "a:1,b:2"}


def test_missing_broker_error_names_both_variables():
    with pytest.raises(SettingError, match=r"KAFKA_BOOTSTRAP_SERVERS.*AIRFLOW_CONN_KAFKA_DEFAULT"):
        read_client_config({})


@pytest.mark.parametrize("connection", ["{", '{"extra": 5}', '{"extra": "x"}'])
def test_error_names_variable_of_invalid_connection(connection: str):
    with pytest.raises(SettingError, match="AIRFLOW_CONN_KAFKA_DEFAULT"):
        read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection})


def test_exactly_once_settings_override_the_connection():
    client = CONFLUENT | {
        "enable.auto.commit": True,
        "auto.offset.reset": "latest",
        "isolation.level": "read_uncommitted",
        "group.id": "theirs",
        "transactional.id": "theirs",
        "acks": "1",
    }
    consumer = consumer_config(client, "ours")
    assert consumer["enable.auto.commit"] is False
    assert consumer["auto.offset.reset"] == "error"
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["group.id"] == "ours"
    assert "transactional.id" not in consumer
    producer = transactional_config(client, "ours/topic_1/0")
    assert producer["transactional.id"] == "ours/topic_1/0"
    assert producer["acks"] == "all"
    assert "group.id" not in producer
    assert producer["sasl.password"] == "secret"


def test_producers_use_the_partitioner_of_java_clients():
    assert producer_config(CONFLUENT)["partitioner"] == "murmur2_random"


def test_clients_retry_unreachable_broker_with_backoff(capfd: pytest.CaptureFixture[str]):
    """Each try writes a line to the task's log."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
        consumer = Consumer(consumer_config({"bootstrap.servers": place}, "a group"))
        with pytest.raises(KafkaException):
            consumer.committed([TopicPartition("topic", 0)], timeout=2)
        consumer.close()
    assert 0 < capfd.readouterr().err.count("Connection refused") < 10


def test_missing_topic_hint_says_which_topic() -> None:
    reason = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert describe_error(reason, {}).endswith(": the topic does not exist: create it")
    assert describe_error(reason, {}, "topic b").endswith(": topic b does not exist: create it")


@pytest.mark.parametrize("code", [KafkaError._SSL, KafkaError._TRANSPORT])
def test_rejected_certificate_is_recognized_by_either_error_code(code: int) -> None:
    reason = KafkaError(code, "error:0A000086:SSL routines::certificate verify failed (after 3ms)")
    assert ": check the certificates named in the connection kafka_default, or " in describe_error(reason, {})
