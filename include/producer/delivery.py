"""Messages to the topic, each acknowledged by the broker or counted as failed."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from include.errors import ProducerError, SettingError
from include.kafka.client_config import producer_config
from include.kafka.client_errors import ClientErrors
from include.kafka.cluster import Cluster
from include.producer.message import Message

_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.librdkafka")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False

_START_SECONDS = 6.0
_FLUSH_SECONDS = 30.0
_SAY_SECONDS = 10.0
_QUEUE = 100_000


class MessageSink(Protocol):
    @property
    def sent(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def unsent(self) -> int:
        """Taken from the source, but not handed to the broker before the end."""

    def send(self, messages: list[Message], stop: threading.Event) -> None: ...

    def close(self) -> None: ...


class Printed:
    """Print messages instead of sending them, until the reader of stdout closes it."""

    def __init__(self) -> None:
        self.sent = self.failed = self.unsent = 0

    def send(self, messages: list[Message], stop: threading.Event) -> None:
        try:
            for message in messages:
                sys.stdout.buffer.write(message.value + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # `head` has seen enough. Python would flush what is left to the same pipe at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            stop.set()
            return
        self.sent += len(messages)

    def close(self) -> None:
        pass


class KafkaDelivery:
    """Raises ProducerError where the broker does not answer or the topic does not exist, and SettingError where
    librdkafka refuses a setting."""

    def __init__(
        self, cluster: Cluster, topic: str, *, flush_seconds: float = _FLUSH_SECONDS, queue: int = _QUEUE
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._flush_seconds = flush_seconds
        self._produced = 0
        self._failed = 0
        self._unsent = 0
        self._reason = ""
        self._connected = False
        self._said_at = -_SAY_SECONDS
        self._errors = ClientErrors(cluster.config)
        settings = producer_config(cluster.config) | {
            "delivery.timeout.ms": 120_000,
            "queue.buffering.max.messages": queue,
            "delivery.report.only.error": True,
            "on_delivery": self._on_failure,
            "error_cb": self._on_error,
        }
        # librdkafka's own logger would add its lines to our one; what matters comes through _on_error.
        try:
            self._producer = Producer(settings, logger=_quiet)
        except KafkaException as error:
            raise SettingError(f"the connection kafka_default cannot be used: {error.args[0].str()}") from error
        self._check_topic()

    @property
    def sent(self) -> int:
        """Acknowledged by the broker."""
        return self._produced - self.failed - len(self._producer)

    @property
    def failed(self) -> int:
        return self._failed

    @property
    def unsent(self) -> int:
        return self._unsent

    def send(self, messages: list[Message], stop: threading.Event) -> None:
        """Waits where the broker is slower than the source; after a stop not for ever, and not after a failure."""
        deadline: float | None = None
        for number, message in enumerate(messages):
            while not self._accepted(message):
                self._producer.poll(0.1)
                if stop.is_set() and deadline is None:
                    deadline = time.monotonic() + self._flush_seconds
                if self.failed or (deadline is not None and time.monotonic() >= deadline):
                    self._unsent += len(messages) - number
                    return
        self._producer.poll(0)

    def close(self) -> None:
        """Raises ProducerError where anything sent was not acknowledged."""
        deadline = time.monotonic() + self._flush_seconds
        while len(self._producer) and time.monotonic() < deadline:
            self._producer.flush(0.5)
        if len(self._producer):
            last = f" ({self._cluster.describe_error(self._errors.last)})" if self._errors.last else ""
            self._reason = self._reason or f"the broker did not answer within {self._flush_seconds:g} s{last}"
            # Each purged one reports itself as failed.
            self._producer.purge()
            self._producer.flush(1)
        if self.failed:
            raise ProducerError(
                f"{self.failed:,} of {self._produced:,} payments were not delivered to topic {self._topic!r}: "
                f"{self._reason}" + (f"; {self.unsent:,} more were not sent" if self.unsent else "")
            )

    def _accepted(self, message: Message) -> bool:
        try:
            self._producer.produce(self._topic, message.value, message.key)
        except BufferError:
            return False
        except KafkaException as error:
            self._fail(error.args[0])
        self._produced += 1
        return True

    def _check_topic(self) -> None:
        try:
            # All topics: asking for one by name would create it on brokers that create topics by themselves.
            topics = self._producer.list_topics(timeout=_START_SECONDS).topics
        except KafkaException as error:
            self._producer.poll(0)
            reason = self._errors.cause_of(error.args[0])
            raise ProducerError(f"Kafka does not answer: {self._cluster.describe_error(reason)}") from error
        if self._topic not in topics:
            raise ProducerError(
                f"topic {self._topic!r} does not exist at {self._cluster.config['bootstrap.servers']}: create it, or "
                "name another with --topic or FRAUD_INPUT_TOPIC"
            )
        self._connected = True

    def _on_failure(self, error: KafkaError | None, _: Delivered) -> None:
        if error is not None:
            self._fail(error)

    def _fail(self, error: KafkaError) -> None:
        self._failed += 1
        self._reason = self._reason or f"{error.str()} [{error.name()}]"

    def _on_error(self, error: KafkaError) -> None:
        self._errors(error)
        now = time.monotonic()
        # librdkafka says it anew at every attempt to connect, some twenty times a second.
        if self._connected and now - self._said_at > _SAY_SECONDS:
            self._said_at = now
            _log.warning("Kafka: %s", self._cluster.describe_error(error))
