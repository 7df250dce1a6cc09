"""A Kafka transaction for one partition of a batch: its messages and its committed offset take effect together."""

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
# A call that takes this much longer than its timeout is given up.
_GRACE_SECONDS = 5.0
_ABORT_SECONDS = 30.0

# For errors about a topic. They often do not name it, and `_name` contains only the input topic.
_TOPICS = "one of the transaction's topics (input, output or dead letters)"

# topic, key, value, headers
OutgoingMessage = tuple[str, bytes | None, bytes | None, Headers]


class Transaction:
    """A transaction for one partition of the group's topic, by a new producer from `ConsumerGroup.fence`.

    An error before step 4 of `run` aborts it. If that abort fails, the broker aborts the transaction when the next
    producer with the same transactional id fences this one, or after the transaction timeout.
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

        `check` runs before the offset is added; if it raises, the transaction is aborted. `on_step` is called with the
        name of each step that is done: "produced" (all messages are in librdkafka's queue, the broker may not have them
        yet), "offsets sent" and "committed". After a ClusterError, read the committed offset to learn whether the
        transaction was committed.
        """
        # Step 1. The transaction timeout starts with the first message, so the messages should be in memory by now.
        with self._cluster.translate_errors(f"{self._name} cannot begin"):
            self._producer.begin_transaction()
        try:
            # Step 2. Delivery callbacks are not needed: the commit fails if the broker rejected a message.
            produce = self._producer.produce
            try:
                for topic, key, value, headers in messages:
                    try:
                        produce(topic, value, key, headers=headers)
                    except BufferError:
                        self._wait_and_produce(topic, key, value, headers)
            except KafkaException as error:
                raise ClusterError(f"{self._name} failed: {self._explain(self._find_cause(error))}") from error
            on_step("produced")
            check()
            # Step 3. The offset is part of the transaction, with the note of the batch that commits it.
            offset = TopicPartition(self._group.topic.name, self._partition, end, metadata=note.encode())
            self._retry(
                "add the offset",
                lambda seconds: _call_with_timeout(
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
        # Step 4. After an error the transaction may be committed or not, so it is not aborted. The exception: if the
        # broker rejected a message, librdkafka requires an abort, and the open transaction would block readers.
        try:
            self._retry("commit", self._producer.commit_transaction)
        except ClusterError as error:
            if isinstance(error.__cause__, KafkaException) and error.__cause__.args[0].txn_requires_abort():
                self._abort()
            raise
        on_step("committed")

    def _wait_and_produce(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Wait until librdkafka's queue has room, and produce a message."""
        while True:
            self._producer.poll(0.5)
            with suppress(BufferError):
                self._producer.produce(topic, value, key, headers=headers)
                return

    def _retry(self, action: str, call: Callable[[float], None]) -> None:
        """Call `call` with the seconds left, at least one, and repeat it while it fails with a retriable error.

        Raise ClusterError if that lasts 120 seconds, and at once after TimeoutError or another error; only a first
        _STATE is repeated too.
        """
        deadline = time.monotonic() + _COMMIT_SECONDS
        has_wrong_state = False
        while True:
            try:
                call(max(1.0, deadline - time.monotonic()))
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
                    # The broker rejected a message during this call. The next call raises the reason.
                    has_wrong_state = True
                    continue
                if reason.retriable() and time.monotonic() < deadline:
                    log.info("%s: retrying to %s after %s", self._name, action, reason.name())
                    self._producer.poll(0.1)
                    continue
                raise ClusterError(f"{self._name} could not {action}: {self._explain(error)}") from error

    def _explain(self, error: KafkaException) -> str:
        reason: KafkaError = error.args[0]
        if reason.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
            return (
                f"timed out or fenced by a newer attempt [{reason.name()}]; the committed offset tells whether it was "
                "committed"
            )
        return self._cluster.describe_error(reason, _TOPICS)

    def _find_cause(self, error: KafkaException) -> KafkaException:
        """Return why `produce` failed: the cause of a fatal error, or `error` itself.

        After a fatal error, such as fencing, `produce` raises _FATAL, which does not say why. `abort_transaction` is
        called only because it raises the cause: it aborts nothing then.
        """
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
            # Only logged, because the caller raises the error that led here.
            log.warning(
                "%s could not be aborted: %s. If it is still open, the next run aborts it",
                self._name,
                error.args[0].name(),
            )


def _call_with_timeout(seconds: float, call: Callable[..., None], *arguments: object) -> None:
    """Run `call` in a thread, and raise TimeoutError if it takes longer than `seconds`; the thread then goes on.

    The call send_offsets_to_transaction of librdkafka 2.16 ignores its timeout while the coordinator does not answer
    (issue 5456), and neither Python nor Airflow can interrupt it.
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
