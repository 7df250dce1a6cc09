"""Send messages to a topic, and count each as acknowledged by the broker or as failed; or print them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from include.errors import ProducerError, SettingError
from include.kafka.client_config import CONFIG_SOURCES, producer_config
from include.kafka.client_errors import ClientErrors
from include.kafka.cluster import Cluster
from include.producer.message import PaymentMessage

_log = logging.getLogger(__name__)
_silent_logger = logging.getLogger(f"{__name__}.librdkafka")
_silent_logger.addHandler(logging.NullHandler())
_silent_logger.propagate = False

_CONNECT_SECONDS = 6.0
_FLUSH_SECONDS = 30.0
_WARNING_SECONDS = 10.0
_QUEUE_MESSAGES = 100_000


class MessageSink(Protocol):
    """A destination of messages, and its counts of them."""

    @property
    def sent(self) -> int:
        """Return how many messages arrived."""

    @property
    def failed(self) -> int:
        """Return how many messages could not be delivered."""

    @property
    def unsent(self) -> int:
        """Return how many messages were taken from the source and dropped, because sending was stopped or failed."""

    def send(self, messages: list[PaymentMessage], stop: threading.Event) -> None:
        """Send messages. Setting `stop` limits the time for which it waits."""

    def close(self) -> None:
        """Wait until all messages arrived. Raise ProducerError if any did not."""


class StdoutSink:
    """Print messages instead of sending them, until the reader of stdout closes it."""

    def __init__(self) -> None:
        self.sent = self.failed = self.unsent = 0

    def send(self, messages: list[PaymentMessage], stop: threading.Event) -> None:
        """Print one message a line. Set `stop` if the reader has closed the pipe."""
        try:
            for message in messages:
                sys.stdout.buffer.write(message.value + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Python flushes stdout at exit, which would fail again on the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            stop.set()
            return
        self.sent += len(messages)

    def close(self) -> None:
        """Do nothing: each `send` flushes."""


class KafkaSink:
    """Send messages to a topic.

    The constructor raises ProducerError if Kafka does not answer or the topic does not exist, and SettingError if
    librdkafka rejects a setting. `queue` is the most messages that librdkafka holds.
    """

    def __init__(
        self, cluster: Cluster, topic: str, *, flush_seconds: float = _FLUSH_SECONDS, queue: int = _QUEUE_MESSAGES
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._flush_seconds = flush_seconds
        self._produced = 0
        self.failed = self.unsent = 0
        self._reason = ""
        self._connected = False
        self._warned_at = -_WARNING_SECONDS
        self._errors = ClientErrors(cluster.config)
        settings = producer_config(cluster.config) | {
            "delivery.timeout.ms": 120_000,
            "queue.buffering.max.messages": queue,
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
            "error_cb": self._on_error,
        }
        # Without librdkafka's own log lines: it passes its errors to _on_error as well, which logs them less often.
        try:
            self._producer = Producer(settings, logger=_silent_logger)
        except KafkaException as error:
            raise SettingError(
                f"the Kafka client cannot be created: {error.args[0].str()}: check {CONFIG_SOURCES}"
            ) from error
        self._check_topic()

    @property
    def sent(self) -> int:
        """Return how many messages the broker has acknowledged."""
        return self._produced - self.failed - len(self._producer)

    def send(self, messages: list[PaymentMessage], stop: threading.Event) -> None:
        """Queue messages, and wait while the queue is full.

        After a failure, or `flush_seconds` after a stop, the rest is counted as unsent.
        """
        deadline: float | None = None
        for number, message in enumerate(messages):
            while not self._enqueue(message):
                self._producer.poll(0.1)
                if stop.is_set() and deadline is None:
                    deadline = time.monotonic() + self._flush_seconds
                if self.failed or (deadline is not None and time.monotonic() >= deadline):
                    self.unsent += len(messages) - number
                    return
        self._producer.poll(0)

    def close(self) -> None:
        """Wait up to `flush_seconds` for acknowledgements. Raise ProducerError if any message has none."""
        deadline = time.monotonic() + self._flush_seconds
        while len(self._producer) and time.monotonic() < deadline:
            self._producer.flush(0.5)
        if len(self._producer):
            last = f" ({self._cluster.describe_error(self._errors.last)})" if self._errors.last else ""
            self._reason = self._reason or f"the broker did not answer within {self._flush_seconds:g} s{last}"
            # librdkafka reports each purged message as failed.
            self._producer.purge()
            self._producer.flush(1)
        if self.failed:
            raise ProducerError(
                f"{self.failed:,} of {self._produced:,} payments were not delivered to topic {self._topic!r}: "
                f"{self._reason}" + (f"; {self.unsent:,} more were not sent" if self.unsent else "")
            )

    def _enqueue(self, message: PaymentMessage) -> bool:
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
            # A request for one topic by name would create it if the broker has auto.create.topics.enable.
            topics = self._producer.list_topics(timeout=_CONNECT_SECONDS).topics
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

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._fail(error)

    def _fail(self, error: KafkaError) -> None:
        self.failed += 1
        self._reason = self._reason or f"{error.str()} [{error.name()}]"

    def _on_error(self, error: KafkaError) -> None:
        self._errors(error)
        now = time.monotonic()
        # librdkafka repeats the error at each attempt to connect, some twenty times a second.
        if self._connected and now - self._warned_at > _WARNING_SECONDS:
            self._warned_at = now
            _log.warning("Kafka: %s", self._cluster.describe_error(error))
