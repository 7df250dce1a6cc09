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


def test_connection_as_json_gives_its_extra():
    connection = json.dumps({"conn_type": "kafka", "extra": CONFLUENT})
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection}) == CONFLUENT


def test_extra_may_be_json_inside_json():
    connection = json.dumps({"conn_type": "kafka", "extra": json.dumps(CONFLUENT)})
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection}) == CONFLUENT


def test_connection_as_uri():
    assert read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": "kafka://?bootstrap.servers=broker%3A9092"}) == {
        "bootstrap.servers": "broker:9092"
    }


def test_bootstrap_servers_alone_are_enough():
    assert read_client_config({"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"}) == {"bootstrap.servers": "a:1,b:2"}


def test_no_broker_names_both_ways_to_give_one():
    with pytest.raises(SettingError, match=r"KAFKA_BOOTSTRAP_SERVERS.*AIRFLOW_CONN_KAFKA_DEFAULT"):
        read_client_config({})


@pytest.mark.parametrize("connection", ["{", '{"extra": 5}', '{"extra": "x"}'])
def test_unreadable_connection_is_named(connection: str):
    with pytest.raises(SettingError, match="AIRFLOW_CONN_KAFKA_DEFAULT"):
        read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection})


def test_protocol_overrides_what_a_connection_holds():
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


def test_producers_place_a_card_where_java_clients_do():
    assert producer_config(CONFLUENT)["partitioner"] == "murmur2_random"


def test_a_broker_that_is_away_is_not_asked_all_the_time(capfd: pytest.CaptureFixture[str]):
    """Each try is a line in the task's log."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
        consumer = Consumer(consumer_config({"bootstrap.servers": place}, "a group"))
        with pytest.raises(KafkaException):
            consumer.committed([TopicPartition("topic", 0)], timeout=2)
        consumer.close()
    assert 0 < capfd.readouterr().err.count("Connection refused") < 10


@pytest.mark.parametrize("code", [KafkaError._SSL, KafkaError._TRANSPORT])
def test_a_certificate_is_named_whatever_kind_of_error_it_is(code: int) -> None:
    reason = KafkaError(code, "error:0A000086:SSL routines::certificate verify failed (after 3ms)")
    assert describe_error(reason, {}).endswith("check the certificates named in the connection kafka_default")
