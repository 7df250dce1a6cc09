from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

from include.kafka.cluster import Cluster
from include.kafka.retention import Retention, read_oldest_times, read_retention, to_datetime
from tests.support.live_stack import LiveStack

Topics = Callable[..., str]


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({}, Retention(timedelta(days=7))),  # the broker's own default
        ({"retention.ms": "60000", "retention.bytes": "123456"}, Retention(timedelta(minutes=1), 123456)),
        ({"retention.ms": "-1"}, Retention()),
        ({"retention.ms": str(2**63 - 1)}, Retention()),
        ({"retention.ms": "60000", "cleanup.policy": "compact"}, Retention()),
        ({"retention.ms": "60000", "cleanup.policy": "compact,delete"}, Retention(timedelta(minutes=1))),
    ],
)
def test_retention_follows_the_topic_configuration(
    services: LiveStack, topics: Topics, configuration: dict[str, str], expected: Retention
):
    topic = topics(**configuration)
    assert read_retention(services.cluster, topic) == expected


def test_retention_of_missing_topic_is_none_and_logged(services: LiveStack, caplog: pytest.LogCaptureFixture):
    assert read_retention(services.cluster, "no_such_topic") is None
    assert "no_such_topic: the retention cannot be read: " in caplog.text


def test_oldest_time_is_that_of_the_first_unread_message(services: LiveStack, topics: Topics):
    topic = topics(3)
    first = int(datetime(2026, 11, 24, 8, tzinfo=UTC).timestamp() * 1000)
    producer = Producer(services.kafka)
    for partition in (0, 1):
        for offset in range(5):
            producer.produce(topic, b"x", partition=partition, timestamp=first + 1000 * (10 * partition + offset))
    assert producer.flush(30) == 0
    started = time.monotonic()
    found = read_oldest_times(services.cluster, "test_oldest", topic, {0: 0, 1: 3, 2: 0})
    assert time.monotonic() - started < 4  # an empty partition reports its end at once
    begin = datetime(2026, 11, 24, 8, tzinfo=UTC)
    assert found == {0: begin, 1: begin + timedelta(seconds=13)}


def test_unreachable_broker_yields_no_times_and_no_retention(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("include.kafka.retention._REQUEST_SECONDS", 0.5)
    caplog.set_level(logging.INFO)
    nowhere = Cluster({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    assert read_oldest_times(nowhere, "test_oldest", "topic_1", {0: 0}) == {}
    assert read_retention(nowhere, "topic_1") is None


@pytest.mark.parametrize("milliseconds", [2**62, -(2**62)])
def test_timestamp_that_is_not_a_date_becomes_the_latest_one(milliseconds: int):
    assert to_datetime((1, milliseconds)) == datetime.max.replace(tzinfo=UTC)


def test_message_without_timestamp_has_no_date():
    assert to_datetime((0, -1)) is None
