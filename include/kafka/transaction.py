"""One partition's batch as one Kafka transaction: its messages and the offset that they were read to, or neither."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from include.errors import ClusterError
from include.kafka.committed_offsets import CommitNote
from include.kafka.consumer_group import ConsumerGroup
from include.kafka.headers import Headers

log = logging.getLogger(__name__)

_COMMIT_SECONDS = 120.0
# A call that exceeds its own timeout by this ignores the timeout.
_GRACE_SECONDS = 5.0
_ABORT_SECONDS = 30.0

# topic, key, value, headers
OutgoingMessage = tuple[str, bytes | None, bytes | None, Headers]


class Transaction:
    """A transaction of a fenced producer, for one partition of the group's topic.

    An error before step 4 of `run` aborts it. If librdkafka does not get to the abort, the next fencing aborts it.
    """

    def __init__(self, producer: Producer, group: ConsumerGroup, partition: int) -> None:
        self._producer = producer
        self._group = group
        self._cluster = group.cluster
        self._partition = partition
        self._name = f"transaction of {group.topic.name}/{partition}"

    def run(
        self,
        messages: Iterable[OutgoingMessage],
        end: int,
        note: CommitNote,
        on_step: Callable[[str], None] = lambda step: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Produce the messages, commit the offset `end` with `note`, and return once the broker acknowledged both.

        `check` runs before the offset is added and raises to abort. `on_step` gets each step's name when it is done:
        published, offsets sent, committed. After a ClusterError only the committed offset tells the outcome.
        """
        # Step 1. The broker's time limit starts with the first message, so the caller should have the bytes ready.
        with self._cluster.translate_errors(f"{self._name} cannot begin"):
            self._producer.begin_transaction()
        try:
            # Step 2. Without delivery callbacks: the commit fails if the broker rejected a message.
            produce = self._producer.produce
            try:
                for topic, key, value, headers in messages:
                    try:
                        produce(topic, value, key, headers=headers)
                    except BufferError:
                        self._wait_and_produce(topic, key, value, headers)
            except KafkaException as error:
                raise ClusterError(f"{self._name} failed: {self._explain(self._cause_of(error))}") from error
            on_step("published")
            check()
            # Step 3. The offset is part of the transaction, with the note of the batch that commits it.
            offset = TopicPartition(self._group.topic.name, self._partition, end, metadata=note.encode())
            self._retry(
                "add the offset",
                lambda seconds: _call_with_limit(
                    seconds + _GRACE_SECONDS,
                    self._producer.send_offsets_to_transaction,
                    [offset],
                    self._group.consumer.consumer_group_metadata(),
                    seconds,
                ),
            )
            on_step("offsets sent")
        except BaseException:
            self._abort()
            raise
        # Step 4. From here on an error leaves the outcome unknown, except if librdkafka requires an abort because the
        # broker rejected a message. An open transaction would then block readers until the next fencing.
        try:
            self._retry("commit", self._producer.commit_transaction)
        except ClusterError as error:
            if isinstance(error.__cause__, KafkaException) and error.__cause__.args[0].txn_requires_abort():
                self._abort()
            raise
        on_step("committed")

    def _wait_and_produce(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Produce a message as soon as librdkafka's queue has room."""
        while True:
            self._producer.poll(0.5)
            with suppress(BufferError):
                self._producer.produce(topic, value, key, headers=headers)
                return

    def _retry(self, action: str, call: Callable[[float], None]) -> None:
        """Run `call`, which takes the seconds left, until it succeeds; raise ClusterError after 120 seconds."""
        until = time.monotonic() + _COMMIT_SECONDS
        has_wrong_state = False
        while True:
            try:
                call(max(1.0, until - time.monotonic()))
                return
            except TimeoutError as error:
                servers = self._cluster.config.get("bootstrap.servers")
                raise ClusterError(
                    f"{self._name} could not {action} within {_COMMIT_SECONDS:g} s: a coordinator does not answer at "
                    f"{servers}: check the brokers"
                ) from error
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.code() == KafkaError._STATE and not has_wrong_state:
                    # The broker rejected a message during this call; the next call raises the reason.
                    has_wrong_state = True
                    continue
                if reason.retriable() and time.monotonic() < until:
                    log.info("%s: retrying to %s after %s", self._name, action, reason.name())
                    self._producer.poll(0.1)
                    continue
                raise ClusterError(f"{self._name} could not {action}: {self._explain(error)}") from error

    def _explain(self, error: KafkaException) -> str:
        reason: KafkaError = error.args[0]
        if reason.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
            return (
                f"timed out or fenced by a newer attempt [{reason.name()}]; only the committed offset tells the outcome"
            )
        return self._cluster.describe_error(reason)

    def _cause_of(self, error: KafkaException) -> KafkaException:
        """Return why the producer failed: `produce` only raises that it did, `abort_transaction` raises the cause."""
        if error.args[0].code() == KafkaError._FATAL:
            try:
                self._producer.abort_transaction(_ABORT_SECONDS)
            except KafkaException as cause:
                return cause
        return error

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(_ABORT_SECONDS)
        except KafkaException as error:
            # Only logged, because the caller raises the error that led here. The next fencing aborts the transaction.
            log.warning("%s could not be aborted: %s. The next run aborts it", self._name, error.args[0].name())


def _call_with_limit(seconds: float, call: Callable[..., None], *arguments: object) -> None:
    """Run `call` in a thread and raise TimeoutError after `seconds`; the thread ends with the call or the process.

    librdkafka 2.16 ignores a call's timeout while it waits for a coordinator that is away (its issue 5456), and nothing
    in Python or Airflow can interrupt such a call.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            call(*arguments)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    outcome.result(seconds)
