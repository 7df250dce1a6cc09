"""Where the consumer group stands on the input topic: the only truth about progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Reason
from confluent_kafka.admin._group import ConsumerGroupDescription
from tenacity import retry, retry_if_exception, wait_fixed

from include.errors import BrokerUnresponsiveError, GroupInUseError, HangingTransactionError, KafkaError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explained, explanation

_Call = TypeVar("_Call", bound=Callable[..., Any])

REQUEST_SECONDS = 15.0
# Long enough for a busy broker, short enough that an open kafka transaction is seen as what it is.
_COMMITTED_SECONDS = 5.0
_VISIBLE_SECONDS = 30.0
# A partition number that no topic has.
_NO_PARTITION = 2**31 - 1


class CommitNote(msgspec.Struct, frozen=True):
    """The metadata beside a committed offset: which batch committed it, on which incarnation of the topic, when."""

    batch: str
    topic_id: str
    at: str

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class Committed:
    """`offset` is None where the group has none; `note` is None where another program committed it."""

    offset: int | None
    note: CommitNote | None = None

    @property
    def batch(self) -> str | None:
        """Who committed it, as the note has it."""
        return self.note.batch if self.note else None


@dataclass(frozen=True)
class Topic:
    name: str
    topic_id: str
    partitions: tuple[int, ...]


def describe_topic(admin: Admin, client: ClientConfig, name: str) -> Topic:
    with explained(f"topic {name} cannot be described", client):
        asked = admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_SECONDS)
        described = admin.answer(asked[name])
    return Topic(name, str(described.topic_id), tuple(sorted(partition.id for partition in described.partitions)))


def describe_group(admin: Admin, client: ClientConfig, group: str) -> ConsumerGroupDescription | None:
    """None where there is none. Whoever asks for its offsets without the right to them hears nothing but silence, as
    behind an open kafka transaction; here it is told."""
    try:
        return _describe_group(admin, group)
    except KafkaException as error:
        if error.args[0].code() == Reason.GROUP_ID_NOT_FOUND:
            return None
        with explained(f"group {group} cannot be described", client):
            raise


def require_unused_group(admin: Admin, client: ClientConfig, group: str, setting: str = "FRAUD_GROUP") -> None:
    """Kafka would not refuse us beside a member of the same group: its commits and ours would undo each other."""
    described = describe_group(admin, client, group)
    if described is None or described.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
        return
    members = ", ".join(f"{member.client_id} on {member.host}" for member in described.members) or "unknown"
    raise GroupInUseError(
        f"group {group} is {described.state.name}: it is in use by {members}. Stop that consumer, or set "
        f"{setting} to a group of its own"
    )


# A broker that has just started, or taken a partition over, says so for some seconds; librdkafka does not wait here.
_MOVING = (Reason.NOT_COORDINATOR, Reason.COORDINATOR_LOAD_IN_PROGRESS, Reason.COORDINATOR_NOT_AVAILABLE)
# And a cluster makes the topic of groups when the first one asks, of which librdkafka hears nothing.
_SILENT = (Reason._TIMED_OUT, Reason._TRANSPORT)


def _again_after(*codes: int) -> Callable[[_Call], _Call]:
    again = retry(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() in codes),
        wait=wait_fixed(0.3),
        stop=lambda state: (state.seconds_since_start or 0) >= REQUEST_SECONDS,
        reraise=True,
    )
    return cast("Callable[[_Call], _Call]", again)


@_again_after(*_MOVING, *_SILENT)
def _describe_group(admin: Admin, group: str) -> ConsumerGroupDescription:
    described: ConsumerGroupDescription = admin.answer(
        admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS / 3)[group]
    )
    return described


@_again_after(*_MOVING)
def _committed(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    return consumer.committed(asked, timeout=_COMMITTED_SECONDS)


def read_committed_offsets(
    consumer: Consumer, client: ClientConfig, topic: str, partitions: Iterable[int]
) -> dict[int, Committed]:
    """By a read_committed consumer: raises HangingTransactionError while a kafka transaction is open on the offsets,
    and BrokerUnresponsiveError where no broker answers."""
    asked = [TopicPartition(topic, partition) for partition in partitions]
    try:
        answers = _committed(consumer, asked)
    except KafkaException as error:
        if error.args[0].code() == Reason._TIMED_OUT:
            _require_answer(consumer, client, topic)
            raise HangingTransactionError(
                f"the committed offsets of {topic} do not settle: a kafka transaction is open on them. If this lasts, "
                "see `kafka-transactions.sh find-hanging`"
            ) from error
        with explained(f"committed offsets of {topic} cannot be read", client):
            raise
    found = {}
    for answer in answers:
        if answer.error is not None:
            with explained(f"committed offset of {topic}/{answer.partition} cannot be read", client):
                raise KafkaException(answer.error)
        offset = answer.offset if answer.offset >= 0 else None
        found[answer.partition] = Committed(offset, _note(answer.metadata))
    return found


def _require_answer(consumer: Consumer, client: ClientConfig, topic: str) -> None:
    """Raise BrokerUnresponsiveError if the group's coordinator does not answer, which times out like an open kafka
    transaction. A coordinator that is up answers at once for a partition that no kafka transaction can cover."""
    try:
        _committed(consumer, [TopicPartition(topic, _NO_PARTITION)])
    except KafkaException as error:
        raise BrokerUnresponsiveError(
            f"committed offsets of {topic} cannot be read: {explanation(error.args[0], client)}"
        ) from error


def await_committed(
    consumer: Consumer, client: ClientConfig, place: TopicPartition, note: CommitNote, before: Committed
) -> Committed:
    """What stands there now, in place of `before`: this commit, or what another program has committed over it.

    An acknowledged commit may take a moment until its markers are written; one that never shows is hanging.
    """
    until = time.monotonic() + _VISIBLE_SECONDS
    seen: Committed | None = None
    silence: BrokerUnresponsiveError | None = None
    while time.monotonic() < until:
        try:
            seen = read_committed_offsets(consumer, client, place.topic, [place.partition])[place.partition]
        except HangingTransactionError:
            silence = None
            continue
        except BrokerUnresponsiveError as error:
            silence = error
            continue
        if seen.note == note or seen != before:
            return seen
        time.sleep(0.05)
    if silence is not None:
        raise silence
    raise KafkaError(
        f"{place.topic}/{place.partition}: the commit of offset {place.offset} was acknowledged but does not show "
        f"({seen.offset if seen else 'unsettled'}); look with `kafka-transactions.sh find-hanging`"
    )


def _note(metadata: str | None) -> CommitNote | None:
    if not metadata:
        return None
    try:
        return msgspec.json.decode(metadata, type=CommitNote)
    except msgspec.DecodeError:
        return None
