"""The command `fraud produce` against a real broker: what arrives, in which order, and how it ends."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from include.errors import ProducerError
from include.kafka.cluster import Cluster
from include.producer.delivery import KafkaSink
from include.producer.message import PaymentMessage
from include.producer.produce import produce
from include.producer.simulator import Simulator
from tests.support.live_stack import LiveStack

FRAUD = Path(sys.executable).with_name("fraud")
PARTITIONS = 3

Topics = Callable[..., str]


@pytest.fixture
def servers(services: LiveStack) -> str:
    return services.bootstrap_servers


def command(servers: str, *words: str) -> list[str]:
    return [str(FRAUD), "produce", *words, "--bootstrap-servers", servers]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_CONN_", "KAFKA_"))}


def run(servers: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(servers, *words), env=environment(), capture_output=True, text=True, timeout=90, check=False
    )


def received(servers: str, topic: str) -> list[list[Message]]:
    """Return all messages on the topic, by partition."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": uuid.uuid4().hex, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    messages: list[list[Message]] = [[] for _ in range(PARTITIONS)]
    ended = 0
    deadline = time.monotonic() + 30
    while ended < PARTITIONS:
        message = consumer.poll(1)
        assert time.monotonic() < deadline
        if message is not None and message.error() is None:
            messages[message.partition()].append(message)
        elif message is not None:
            ended += 1
    consumer.close()
    return messages


def values(message: Message) -> list[object]:
    row: list[object] = json.loads(message.value())["data"][0]
    return row


def test_payments_arrive_once_and_in_order_by_card(servers: str, topics: Topics) -> None:
    topic = topics(PARTITIONS)
    words = [
        "--topic",
        topic,
        "--count",
        "5000",
        "--rate",
        "0",
        "--seed",
        "11",
        "--start",
        "2025-03-01",
        "--cards",
        "40",
    ]
    ended = run(servers, "simulate", *words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("5,000 payments sent in ")
    assert "0 failed" in ended.stdout

    partitions = received(servers, topic)
    assert all(partitions)
    by_card: dict[object, list[list[object]]] = defaultdict(list)
    for messages in partitions:
        for message in messages:
            assert message.key() == str(values(message)[1]).encode()
            by_card[values(message)[1]].append(values(message))
    for first in partitions:
        for second in partitions:
            assert first is second or not {message.key() for message in first} & {message.key() for message in second}

    expected: dict[object, list[list[object]]] = defaultdict(list)
    start = datetime.datetime(2025, 3, 1, tzinfo=datetime.UTC)
    for row in Simulator(11, 0.01, 40, start).payments(5_000):
        expected[row[1]].append(list(row))
    assert by_card == expected


def test_partitions_match_java_clients(servers: str, topics: Topics) -> None:
    assert murmur2(b"abc") == 479470107  # from Kafka's own tests
    topic = topics(PARTITIONS)
    assert run(servers, "simulate", "--topic", topic, "--count", "300", "--rate", "0").returncode == 0
    for partition, messages in enumerate(received(servers, topic)):
        assert {murmur2(message.key()) % PARTITIONS for message in messages} == {partition}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_command_after_all_are_delivered(servers: str, topics: Topics, number: signal.Signals) -> None:
    topic = topics(PARTITIONS)
    words = command(servers, "simulate", "--topic", topic, "--rate", "300")
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(received(servers, topic)) and time.monotonic() < deadline:
                assert process.poll() is None
            process.send_signal(number)
            output, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    sent = int(output.split(" payments sent")[0].replace(",", ""))
    assert sent == sum(map(len, received(servers, topic))) > 0


def new_messages(count: int) -> list[PaymentMessage]:
    return [PaymentMessage(b"%d" % number, b'{"data":[[%d]]}' % number) for number in range(count)]


def test_stop_with_a_full_queue_still_sends_all(servers: str, topics: Topics) -> None:
    topic = topics(PARTITIONS)
    sink = KafkaSink(Cluster({"bootstrap.servers": servers}), topic, queue=20)
    stop = threading.Event()
    stop.set()
    sink.send(new_messages(100), stop)
    sink.close()
    assert (sink.sent, sink.failed, sink.unsent) == (100, 0, 0)
    assert sum(map(len, received(servers, topic))) == 100


def test_messages_dropped_after_a_stop_are_counted(servers: str, topics: Topics) -> None:
    sink = KafkaSink(Cluster({"bootstrap.servers": servers}), topics(PARTITIONS), queue=10, flush_seconds=0.3)

    class StoppedStream:
        def message_lists(self, stop: threading.Event) -> Iterator[list[PaymentMessage]]:
            stop.set()
            yield new_messages(1_000)

        def status(self) -> str:
            return "a test"

    try:
        text = produce(StoppedStream(), sink)
        expected = f", 0 failed, {sink.unsent} not sent; a test"
    except ProducerError as error:  # if the broker does not acknowledge the queued messages in time
        text, expected = str(error), f"; {sink.unsent} more were not sent"
    assert text.endswith(expected)
    assert sink.unsent > 0
    assert sink.sent + sink.failed + sink.unsent == 1_000


def test_failed_delivery_is_an_error_with_count_and_reason(servers: str, topics: Topics) -> None:
    topic = topics(PARTITIONS, **{"max.message.bytes": "400"})
    ended = run(servers, "simulate", "--topic", topic, "--rate", "100")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("fraud produce simulate: ")
    assert f"payments were not delivered to topic '{topic}': Broker: Message size too large" in last
    assert not any(received(servers, topic))


def test_missing_topic_is_named_and_not_created(servers: str) -> None:
    topic = f"absent_{uuid.uuid4().hex}"
    ended = run(servers, "simulate", "--topic", topic, "--count", "1")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        f"fraud produce simulate: topic '{topic}' does not exist at {servers}: create it"
    )
    assert topic not in AdminClient({"bootstrap.servers": servers}).list_topics(timeout=10).topics


def test_csv_payments_arrive_as_written_with_the_connection_of_airflow(
    servers: str, topics: Topics, tmp_path: Path
) -> None:
    topic = topics(PARTITIONS)
    path = tmp_path / "payments.csv"
    Simulator(seed=4).frame(200).to_csv(path)
    connection = {"conn_type": "kafka", "extra": {"bootstrap.servers": servers, "group.id": "x", "acks": "0"}}
    ended = subprocess.run(
        [FRAUD, "produce", "csv", path, "--rate", "0"],
        env=environment() | {"AIRFLOW_CONN_KAFKA_DEFAULT": json.dumps(connection), "FRAUD_INPUT_TOPIC": topic},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    arrived = [message for messages in received(servers, topic) for message in messages]
    arrived.sort(key=lambda message: json.loads(message.value())["index"])
    assert [tuple(values(message)) for message in arrived] == Simulator(seed=4).payments(200)


def test_missing_broker_is_an_error_of_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so that no other process answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(address, "simulate", "--count", "1", "--seed", "1")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("fraud produce simulate: Kafka does not answer")
    assert address in ended.stderr


def test_missing_setting_error_names_both_settings() -> None:
    ended = subprocess.run(
        [FRAUD, "produce", "simulate", "--seed", "1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "KAFKA_BOOTSTRAP_SERVERS" in ended.stderr
    assert "AIRFLOW_CONN_KAFKA_DEFAULT" in ended.stderr


def test_print_needs_no_broker() -> None:
    ended = subprocess.run(
        [FRAUD, "produce", "simulate", "--print", "--count", "3", "--seed", "1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [json.loads(line)["index"] for line in ended.stdout.splitlines()] == [[0], [1], [2]]
    assert ended.stderr.startswith("3 payments sent")


def murmur2(data: bytes) -> int:
    """Hash as Kafka's Java clients do in Utils.murmur2, made positive as by their partitioner."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF
