"""A producer with a steady rate: payments and rough messages, some in Kafka transactions, some aborted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException, Producer

from tests.support import kafka_log
from tests.support.group import Group
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.rough_payments import HEAVY, ROUGH, Incoming, mixed, tokens

FRAUDS = 0.02
ROUGH_A_SECOND = 3
ABORTED = b'{"columns":["amt"],"index":[0],"data":[["aborted"]]}'


class SteadyProducer(threading.Thread):
    """Sends a portion each second: in turn without a transaction, in one, and after an aborted one."""

    def __init__(self, servers: str, rate: int, seed: int) -> None:
        super().__init__(name="producer", daemon=True)
        self._servers, self._rate = servers, rate
        self._random = random.Random(seed)
        self._group = Group(servers)
        self._ending = threading.Event()
        self._sending = threading.Lock()
        self._transactional: Producer | None = None
        self._plain = kafka_log.producer(servers)
        self.sent = 0
        self.failed = 0
        self.ended_by = ""

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Wait until no portion is being sent, and hold the next one back."""
        with self._sending:
            yield

    def reset(self) -> None:
        """Forget what was sent, because the topic was recreated. Call it inside `quiet` only."""
        self._plain, self._transactional = kafka_log.producer(self._servers), None

    def end(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(120)

    def run(self) -> None:
        try:
            self._send_until_the_end()
        except Exception as error:
            self.ended_by = repr(error)
            raise

    def _send_until_the_end(self) -> None:
        turn, began = 0, time.monotonic()
        while not self._ending.wait(max(0.0, began + turn - time.monotonic())):
            with self._sending:
                portion = self._portion()
                try:
                    self._send(portion, turn % 3)
                    self.sent += len(portion)
                except KafkaException:
                    # The broker is away. What of the portion arrived counts: the topic says what was sent.
                    self.failed += 1
                    self._transactional = None
            turn = max(turn + 1, int(time.monotonic() - began) - 5)
        self._plain.flush(60)

    def _portion(self) -> list[Incoming]:
        frauds = sum(self._random.random() < FRAUDS for _ in range(self._rate))
        ordinary = payments(*[FRAUD_FOR_BOTH] * frauds, *[GENUINE] * (self._rate - frauds))
        kinds = self._random.sample(sorted(set(ROUGH) - HEAVY), ROUGH_A_SECOND)
        plain = [tokens(one.values, one.values.values()) for one in ordinary]
        return mixed(plain, self._random.randrange(2**32), each=1, few=0, kinds=kinds)

    def _send(self, portion: list[Incoming], way: int) -> None:
        if way == 0:
            self._produce(self._plain, portion)
            self._plain.flush(5)
            return
        if self._transactional is None:
            self._transactional = kafka_log.producer(self._servers, "soak")
        client = self._transactional
        if way == 1:
            client.begin_transaction()
            for partition in range(3):
                client.produce(self._group.topic, ABORTED, b"aborted", partition)
            client.flush(5)
            client.abort_transaction(5)
        client.begin_transaction()
        self._produce(client, portion)
        client.commit_transaction(10)

    def _produce(self, client: Producer, portion: list[Incoming]) -> None:
        partitions = sorted(client.list_topics(self._group.topic, timeout=5).topics[self._group.topic].partitions)
        for number, one in enumerate(portion):
            partition = partitions[number % len(partitions)]
            client.produce(self._group.topic, one.value, one.key, partition, headers=one.headers)
            client.poll(0)
