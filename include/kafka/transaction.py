"""One partition's batch as one kafka transaction: what is published, and the offset it was read to, or neither.

The transactional id names group, topic and partition and nothing else. So a newer attempt fences every older one,
whichever worker, run or number of shards that came from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import KafkaError as Reason

from include.errors import KafkaError
from include.kafka.admin import ClientErrors
from include.kafka.client_config import ClientConfig, explained, explanation, transaction_settings
from include.kafka.committed_offsets import CommitNote

log = logging.getLogger(__name__)

_INIT_SECONDS = 60.0
# After which a client that still has no answer is given up for a new one.
_CLIENT_SECONDS = 15.0
_COMMIT_SECONDS = 120.0
# Producers open at the same time: each has about four threads and a queue.
_SLICE = 24
# What a call may take beyond the time that it was given, before it counts as one that minds no time.
_GRACE_SECONDS = 5.0

Headers = list[tuple[str, str | bytes | None]]
# topic, key, value, headers
Outgoing = tuple[str, bytes | None, bytes | None, Headers]


def transactional_id(group: str, topic: str, partition: int) -> str:
    return f"{group}/{topic}/{partition}"


def _ready(client: ClientConfig, settings: ClientConfig, topic: str, until: float) -> Producer:
    def left() -> float:
        # Never below nothing, which librdkafka takes for no limit at all.
        return max(1.0, until - time.monotonic())

    heard = ClientErrors(client)
    producer = Producer(settings | {"error_cb": heard})
    # The first answer ends the connection it came by; asked for its coordinator before it has another, librdkafka waits
    # for half a second (2.16). About a topic that this user may ask about.
    with heard.listening(producer):
        for _ in range(2):
            producer.list_topics(topic, left())
        producer.init_transactions(left())
    return producer


def _lost_all_brokers(error: KafkaError) -> bool:
    """A client whose cluster told it once that it has no broker, as one does that was away for a moment and is not back
    in its own books, forgets where to ask and never asks again (librdkafka 2.16, whatever its recovery strategy)."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in (Reason._TRANSPORT, Reason._TIMED_OUT)


class Producers:
    """Ready producers by partition. Asking for one that could not be had raises why; the others are of use."""

    def __init__(self, found: dict[int, Producer | KafkaError]) -> None:
        self._found = found

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def close(self) -> None:
        """Drop the producers: librdkafka ends their threads with the last reference."""
        self._found.clear()

    def __getitem__(self, partition: int) -> Producer:
        found = self._found[partition]
        if isinstance(found, KafkaError):
            raise found
        return found


def fence(client: ClientConfig, group: str, topic: str, partitions: Iterable[int]) -> Producers:
    """Every earlier producer of these partitions is now shut out by the broker, and a kafka transaction that it left
    open is aborted. In parallel: in sequence each takes its time at the broker.
    """

    def ready(partition: int) -> tuple[int, Producer | KafkaError]:
        until = time.monotonic() + _INIT_SECONDS
        settings = transaction_settings(client, transactional_id(group, topic, partition))
        while True:
            try:
                with explained(f"kafka transactions of {topic}/{partition} cannot be taken over", client):
                    return partition, _ready(client, settings, topic, min(time.monotonic() + _CLIENT_SECONDS, until))
            except KafkaError as error:
                if not _lost_all_brokers(error) or time.monotonic() >= until:
                    return partition, error
                log.info("kafka transactions of %s/%s: again with a new client: %s", topic, partition, error)

    with ThreadPoolExecutor(_SLICE) as threads:
        return Producers(dict(threads.map(ready, partitions)))


def fence_in_slices(client: ClientConfig, group: str, topic: str, partitions: Iterable[int]) -> Iterator[Producers]:
    """Yield the fenced producers in slices of at most 24 partitions; a partition is fenced when its slice is yielded.

    Each slice is closed when the next one is asked for, so that threads and memory do not grow with the partitions.
    """
    numbers = list(partitions)
    for begin in range(0, len(numbers), _SLICE):
        producers = fence(client, group, topic, numbers[begin : begin + _SLICE])
        yield producers
        producers.close()


def _within(seconds: float, call: Callable[..., None], *arguments: object) -> None:
    """Raises TimeoutError where it takes longer; the call goes on, and ends with the process.

    For one that librdkafka lets wait for a coordinator that is away, whatever timeout it was given (2.16, its issue
    5456): nothing that Python or Airflow does would end it.
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


class Transaction:
    """Steps: 1. begin, 2. publish, 3. check and add the offset, 4. commit. Any error before the commit aborts, or where
    librdkafka is still at work, the next fence does."""

    def __init__(self, producer: Producer, client: ClientConfig, consumer: Consumer, source: TopicPartition) -> None:
        self._producer = producer
        self._client = client
        self._consumer = consumer
        self._source = source

    @property
    def _name(self) -> str:
        return f"kafka transaction of {self._source.topic}/{self._source.partition}"

    def run(
        self,
        messages: Iterable[Outgoing],
        end: int,
        note: CommitNote,
        reached: Callable[[str], None] = lambda point: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Returns when the commit is acknowledged. After a KafkaError only the committed offset tells the outcome.

        `check` raises where the offset must not be added after all.
        """
        # Step 1. The broker's clock runs from the first message, so the caller has the bytes ready.
        with explained(f"{self._name} cannot begin", self._client):
            self._producer.begin_transaction()
        try:
            # Step 2. No delivery callbacks: the commit fails if any message did.
            produce = self._producer.produce
            try:
                for topic, key, value, headers in messages:
                    try:
                        produce(topic, value, key, headers=headers)
                    except BufferError:
                        self._produce(topic, key, value, headers)
            except KafkaException as error:
                raise KafkaError(f"{self._name}: {self._why(self._cause(error))}") from error
            reached("published")
            check()
            # Step 3. The offset rides in the same transaction, with the name of the batch that moves it.
            offset = TopicPartition(self._source.topic, self._source.partition, end, metadata=note.encode())
            self._retried(
                "add the offset",
                lambda left: _within(
                    left + _GRACE_SECONDS,
                    self._producer.send_offsets_to_transaction,
                    [offset],
                    self._consumer.consumer_group_metadata(),
                    left,
                ),
            )
            reached("offsets sent")
        except BaseException:
            self._abort()
            raise
        # Step 4. From here on an error leaves the outcome unknown, unless the client says that it calls for an abort:
        # where a message was refused. Left open, that one would hold up readers until the next fence.
        try:
            self._retried("commit", self._producer.commit_transaction)
        except KafkaError as error:
            if isinstance(error.__cause__, KafkaException) and error.__cause__.args[0].txn_requires_abort():
                self._abort()
            raise
        reached("committed")

    def _produce(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Once librdkafka has room for it."""
        while True:
            self._producer.poll(0.5)
            with suppress(BufferError):
                self._producer.produce(topic, value, key, headers=headers)
                return

    def _retried(self, doing: str, call: Callable[[float], None]) -> None:
        """`call` is given the seconds that are left."""
        until = time.monotonic() + _COMMIT_SECONDS
        failed_meanwhile = False
        while True:
            try:
                call(max(1.0, until - time.monotonic()))
                return
            except TimeoutError as error:
                where = self._client.get("bootstrap.servers")
                raise KafkaError(
                    f"{self._name} could not {doing} within {_COMMIT_SECONDS:g} s: a coordinator is away at {where}"
                ) from error
            except KafkaException as error:
                if error.args[0].code() == Reason._STATE and not failed_meanwhile:
                    # A message was refused while this was under way; asked again, librdkafka says why.
                    failed_meanwhile = True
                    continue
                if error.args[0].retriable() and time.monotonic() < until:
                    log.info("%s: %s again: %s", self._name, doing, error.args[0].name())
                    self._producer.poll(0.1)
                    continue
                raise KafkaError(f"{self._name} could not {doing}: {self._why(error)}") from error

    def _why(self, error: KafkaException) -> str:
        reason = error.args[0]
        if reason.code() in (Reason._FENCED, Reason.INVALID_PRODUCER_EPOCH, Reason.PRODUCER_FENCED):
            return (
                f"timed out or fenced by a newer attempt [{reason.name()}]; only the committed offset tells the outcome"
            )
        return explanation(reason, self._client)

    def _cause(self, error: KafkaException) -> KafkaException:
        """A producer that is of no use any more says just that when it is to send; an abort says what made it so."""
        if error.args[0].code() == Reason._FATAL:
            try:
                self._producer.abort_transaction(30)
            except KafkaException as cause:
                return cause
        return error

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(30)
        except KafkaException as error:
            # The next attempt's fence ends it; what led here is the error to show.
            log.warning("%s: abort failed: %s", self._name, error.args[0].name())
