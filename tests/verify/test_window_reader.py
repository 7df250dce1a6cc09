from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer

from include.errors import ClusterError
from include.verify import window_reader
from tests.support import kafka_log
from tests.support.live_stack import LiveStack


@pytest.fixture
def consumer(services: LiveStack) -> Iterator[Consumer]:
    with services.cluster.consumer("a reader") as made:
        yield made


def test_error_says_why_no_message_arrives(
    services: LiveStack, topics: Callable[..., str], consumer: Consumer, monkeypatch: pytest.MonkeyPatch
):
    """An open Kafka transaction, an end that no message reaches, and a broker that does not answer."""
    monkeypatch.setattr(window_reader, "_QUIET_SECONDS", 1.0)
    topic, cluster = topics(), services.cluster
    kafka_log.send(services.bootstrap_servers, topic, [b"1"], 0)
    opened = kafka_log.producer(services.bootstrap_servers, f"open-{topic}")
    opened.begin_transaction()
    opened.produce(topic, b"2", partition=0)
    opened.flush()

    def read_on(end: int) -> str:
        with pytest.raises(ClusterError) as error:
            list(window_reader.read_window(cluster, consumer, topic, {0: (0, end)}, lambda text, share: None))
        return str(error.value)

    assert "a Kafka transaction is open on these partitions: 0 (to 2, stable to 1)" in read_on(2)
    opened.commit_transaction()
    assert (
        "partitions not read to their end offsets: 0 (to 9). No Kafka transaction is open and the broker answers"
        in read_on(9)
    )

    # A busy broker needs time to answer; only the wait for the frozen one is short.
    monkeypatch.setattr(window_reader, "_QUIET_SECONDS", 30.0)
    messages = window_reader.read_window(cluster, consumer, topic, {0: (0, 9)}, lambda text, share: None)
    assert next(messages).value() == b"1"
    monkeypatch.setattr(window_reader, "_QUIET_SECONDS", 1.0)
    monkeypatch.setattr("include.kafka.cluster.REQUEST_SECONDS", 3.0)
    with services.frozen("kafka"), pytest.raises(ClusterError) as silent:
        list(messages)
    assert re.search(
        f"offsets of {topic} cannot be listed: .*: (check that the broker is running|the broker did not answer)",
        str(silent.value),
    )
    assert "Kafka transaction" not in str(silent.value)
    # The broker answers again before the next test.
    kafka_log.send(services.bootstrap_servers, topic, [b"3"], 0)
