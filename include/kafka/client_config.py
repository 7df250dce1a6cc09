"""librdkafka settings: the connection's own, with what the protocol needs laid over them, and errors in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import KafkaError as Reason
from confluent_kafka import KafkaException

from include.errors import KafkaError, SettingError
from include.kafka.connection_extra import to_client_config
from include.settings import login

ClientConfig = dict[str, str | int | float | bool]

TRANSACTION_TIMEOUT_MS = 300_000

# Settings of the consuming or producing side that a shared connection may hold and another side would warn about or,
# worse, obey: with auto-commit librdkafka commits on close, and any offset reset jumps over payments.
_ONLY_CONSUMER = (
    "group.id",
    "group.instance.id",
    "auto.offset.reset",
    "enable.auto.commit",
    "auto.commit.interval.ms",
    "enable.auto.offset.store",
    "isolation.level",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "enable.partition.eof",
)
_ONLY_PRODUCER = (
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "linger.ms",
    "queue.buffering.max.ms",
    "compression.type",
    "compression.codec",
    "partitioner",
    "batch.size",
    "batch.num.messages",
    "retries",
    "message.send.max.retries",
    "delivery.timeout.ms",
    "message.timeout.ms",
    "max.in.flight.requests.per.connection",
    "max.in.flight",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
)
_PROMPT: ClientConfig = {
    # At first, that is: both grow with each try in vain. librdkafka waits before the first connection to a broker that
    # it has just heard of, and asks again after a tenth of a second for offsets whose commit is still being marked.
    "reconnect.backoff.ms": 20,
    "retry.backoff.ms": 20,
    "reconnect.backoff.max.ms": 1_000,
    # While no broker answers, librdkafka 2.16 by default makes its connections anew, and forgets each time how long it
    # has waited: fifty tries and lines of log a second. A client of ours lives for a task and needs no new addresses.
    "metadata.recovery.strategy": "none",
}


def client_settings(environment: Mapping[str, str]) -> ClientConfig:
    """The connection `kafka_default` from `AIRFLOW_CONN_KAFKA_DEFAULT`, else what the plain variables say."""
    connection = environment.get("AIRFLOW_CONN_KAFKA_DEFAULT", "").strip()
    servers = environment.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    settings = to_client_config(_extra(connection) if connection else plain_settings(environment))
    if servers and "bootstrap.servers" not in settings:
        settings |= to_client_config({"bootstrap.servers": servers})
    if not settings.get("bootstrap.servers"):
        raise SettingError(
            "no Kafka broker is known: set KAFKA_BOOTSTRAP_SERVERS=host:port, or AIRFLOW_CONN_KAFKA_DEFAULT with "
            '"bootstrap.servers" in its "extra"'
        )
    return settings


def plain_settings(environment: Mapping[str, str]) -> ClientConfig:
    """`KAFKA_BOOTSTRAP_SERVERS`, with SASL_USERNAME and SASL_PASSWORD as Confluent Cloud takes them. Maybe nothing."""
    servers = environment.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    user, password = login(environment, "SASL_USERNAME", "SASL_PASSWORD")
    if not servers:
        return {}
    if not (user and password):
        return {"bootstrap.servers": servers}
    return {
        "bootstrap.servers": servers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


def _extra(connection: str) -> ClientConfig:
    try:
        if connection.startswith("{"):
            extra = json.loads(connection).get("extra") or {}
            settings = json.loads(extra) if isinstance(extra, str) else extra
        else:
            query = dict(parse_qsl(urlsplit(connection).query))
            settings = json.loads(query["__extra__"]) if "__extra__" in query else query
            settings = {unquote(name): value for name, value in settings.items()}
        return dict(settings)
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingError(
            'AIRFLOW_CONN_KAFKA_DEFAULT cannot be read: give {"conn_type": "kafka", "extra": {"bootstrap.servers": …}}'
        ) from error


def common_settings(client: ClientConfig) -> ClientConfig:
    return _PROMPT | {name: value for name, value in client.items() if name not in _ONLY_CONSUMER + _ONLY_PRODUCER}


def consumer_settings(client: ClientConfig, group: str) -> ClientConfig:
    """For reading given offsets and asking for committed ones; it never joins the group and never commits."""
    return common_settings(client) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # A batch is read at once and then the consumer is closed: fetch at full speed, hold little.
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": 65_536,
    }


def producer_settings(client: ClientConfig) -> ClientConfig:
    """For every producer of this product. murmur2, so that one card stays on one partition whoever produces."""
    return common_settings(client) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "partitioner": "murmur2_random",
        "linger.ms": 20,
    }


def transaction_settings(client: ClientConfig, transactional_id: str) -> ClientConfig:
    return producer_settings(client) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # The broker's limit decides, not librdkafka's lower one.
        "message.max.bytes": 100_000_000,
        # What waits to be sent, or to be acknowledged; more than one message may be.
        "queue.buffering.max.kbytes": 131_072,
    }


@contextmanager
def explained(doing: str, client: ClientConfig) -> Iterator[None]:
    """Turns librdkafka's exceptions into one line that says what failed, against which brokers, and what mends it."""
    try:
        yield
    except KafkaException as error:
        reason = error.args[0]
        raise KafkaError(f"{doing}: {explanation(reason, client)}") from error


def is_untrusted(reason: Reason) -> bool:
    """A certificate; librdkafka says it as an error of SSL or, now and then, of the transport (2.16)."""
    return "certificate verify failed" in reason.str()


_HINTS = {
    Reason._TRANSPORT: "is the broker up and the address right?",
    Reason._ALL_BROKERS_DOWN: "is the broker up and the address right?",
    Reason._RESOLVE: "is the address right?",
    Reason._TIMED_OUT: "the broker did not answer in time: is it up, and are address and security.protocol right?",
    Reason._AUTHENTICATION: "check the user name and password in the connection kafka_default",
    Reason._SSL: "check the certificates named in the connection kafka_default",
    Reason.TOPIC_AUTHORIZATION_FAILED: "the user lacks a right on this topic",
    Reason.GROUP_AUTHORIZATION_FAILED: "the user lacks the right Read on this group",
    Reason.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the user lacks the right Write on this transactional id",
    Reason.CLUSTER_AUTHORIZATION_FAILED: "the user lacks a right on the cluster",
    Reason.UNKNOWN_TOPIC_OR_PART: "the topic does not exist; create it",
    Reason._UNKNOWN_TOPIC: "the topic does not exist; create it",
    Reason.MSG_SIZE_TOO_LARGE: "raise that topic's max.message.bytes above the input topic's: headers were added",
    Reason._UNKNOWN_PARTITION: "the topic does not exist or lost a partition",
}


def explanation(reason: Reason, client: ClientConfig) -> str:
    hint = _HINTS.get(Reason._SSL if is_untrusted(reason) else reason.code())
    return f"{reason.str()} [{reason.name()}] at {client.get('bootstrap.servers')}" + (f": {hint}" if hint else "")
