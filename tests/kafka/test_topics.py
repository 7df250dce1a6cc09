"""`fraud topics` on the real broker."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType
from typer.testing import CliRunner, Result

from dev.stack.kafka import admin
from include.cli.main import app
from include.errors import ClusterError
from include.kafka.cluster import Cluster
from include.kafka.topics import Topics
from include.settings import Settings
from tests.support.kafka_log import delete_topics, make_topic, set_topic
from tests.support.live_stack import LiveStack


@pytest.fixture
def names(services: LiveStack) -> Iterator[dict[str, str]]:
    """Settings with names that no topic has yet."""
    mark = uuid.uuid4().hex[:8]
    variables = {
        "FRAUD_INPUT_TOPIC": f"in_{mark}",
        "FRAUD_OUTPUT_TOPIC": f"out_{mark}",
        "FRAUD_DEAD_LETTER_TOPIC": f"dead_{mark}",
        "FRAUD_OUTPUT_DEAD_LETTER_TOPIC": f"refused_{mark}",
    }
    yield variables
    there = admin({"bootstrap.servers": services.bootstrap_servers}).list_topics(timeout=10).topics
    delete_topics(services.bootstrap_servers, [name for name in variables.values() if name in there])


def fraud_topics(services: LiveStack, names: dict[str, str], **variables: str) -> Result:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": services.bootstrap_servers, **names, **variables}
    return CliRunner().invoke(app, ["topics"], env=environment)


def setting(services: LiveStack, topic: str, name: str) -> str:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = admin({"bootstrap.servers": services.bootstrap_servers})
    return str(client.describe_configs([resource])[resource].result(10)[name].value)


def partitions(services: LiveStack, topic: str) -> int:
    return len(
        admin({"bootstrap.servers": services.bootstrap_servers}).list_topics(topic, timeout=10).topics[topic].partitions
    )


def test_topics_are_created_by_the_settings_and_then_kept(services: LiveStack, names: dict[str, str]):
    source, *outputs = names.values()
    variables = {"FRAUD_TOPIC_PARTITIONS": "2", "FRAUD_TOPIC_RETENTION_HOURS": "12", "FRAUD_TOPIC_REPLICATION": "1"}
    first = fraud_topics(services, names, **variables)
    assert first.exit_code == 0, first.output
    assert first.output.splitlines() == [f"{name}: created" for name in (source, *outputs)]
    for name in (source, *outputs):
        assert partitions(services, name) == 2
        assert setting(services, name, "retention.ms") == str(12 * 3_600_000)
    limit = int(setting(services, source, "max.message.bytes"))
    assert [int(setting(services, name, "max.message.bytes")) for name in outputs] == [2 * limit] * 3

    again = fraud_topics(services, names, **variables)
    assert again.exit_code == 0
    assert again.output.splitlines() == [f"{name}: exists, as configured" for name in (source, *outputs)]


def test_differences_are_reported_and_not_changed(services: LiveStack, names: dict[str, str]):
    source, scored, dead, _ = names.values()
    make_topic(services.bootstrap_servers, 1, name=source, configuration={"retention.ms": "-1"})
    make_topic(services.bootstrap_servers, 4, name=scored, configuration={"cleanup.policy": "compact,delete"})
    done = fraud_topics(services, names, FRAUD_TOPIC_REPLICATION="3")
    # One broker cannot keep three copies, but only the missing topics need them.
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"{source}: exists, not changed: partitions 1 instead of 3; replication 1 instead of 3; "
        "retention unlimited instead of 168 hours"
    )
    assert lines[1].startswith(
        f"{scored}: exists, not changed: partitions 4 instead of 3; replication 1 instead of 3; "
    )
    limit = int(setting(services, source, "max.message.bytes"))
    assert "cleanup.policy compact,delete instead of delete" in lines[1]
    assert f"max.message.bytes {limit} instead of at least {limit + 1}: " in lines[1]
    assert f"topic {dead} does not exist and cannot be created" in done.stderr
    assert "INVALID_REPLICATION_FACTOR" in done.stderr
    assert [partitions(services, name) for name in (source, scored)] == [1, 4]
    assert setting(services, source, "retention.ms") == "-1"


def test_output_topics_allow_twice_the_input_topics_message_size(services: LiveStack, names: dict[str, str]):
    source, scored, _, refused = names.values()
    make_topic(services.bootstrap_servers, 3, name=source)
    set_topic(services.bootstrap_servers, source, "max.message.bytes", "3000000")
    assert fraud_topics(services, names).exit_code == 0
    assert [setting(services, name, "max.message.bytes") for name in (scored, refused)] == ["6000000"] * 2


def test_shared_topic_names_are_refused_before_a_topic_is_created(services: LiveStack, names: dict[str, str]):
    source, scored, _, _ = names.values()
    done = fraud_topics(services, names | {"FRAUD_DEAD_LETTER_TOPIC": scored})
    assert done.exit_code == 1
    assert "FRAUD_DEAD_LETTER_TOPIC" in done.stderr
    there = admin({"bootstrap.servers": services.bootstrap_servers}).list_topics(timeout=10).topics
    assert source not in there


def test_unreachable_broker_error_names_its_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.kafka.topics._REQUEST_SECONDS", 2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"topics cannot be listed: .*check that the broker is running") as error:
            list(Topics(Cluster({"bootstrap.servers": address, "log_level": 0}), Settings()).ensure())
    assert address in str(error.value)
