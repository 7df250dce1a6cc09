"""The configuration of Kafka clients: the connection's settings of librdkafka, and those for exactly-once delivery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from include.errors import SettingError
from include.kafka.connection_extra import to_client_config
from include.settings import login

ClientConfig = dict[str, str | int | float | bool]

# The broker aborts a transaction that is open for longer.
TRANSACTION_TIMEOUT_MS = 300_000

# Where operators correct the configuration, for error messages.
CONFIG_SOURCES = "the connection kafka_default, or KAFKA_BOOTSTRAP_SERVERS and SASL_… if it is not set"

# Settings for consumers only and for producers only. The connection kafka_default may have them for other programs, but
# our clients must not use them. Some would lose payments: enable.auto.commit commits when a consumer is closed, and
# auto.offset.reset skips offsets. librdkafka warns about the others in a client of the wrong kind.
_CONSUMER_SETTINGS = (
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
_PRODUCER_SETTINGS = (
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
_RETRY_CONFIG: ClientConfig = {
    # The waits after a first failed connection and a first failed request; they double with each further failure.
    # librdkafka's defaults are 100 ms, which would delay two things that are no failures: it waits
    # reconnect.backoff.ms also before its first connection to a broker, and retry.backoff.ms before it requests
    # committed offsets again that a transaction is just changing.
    "reconnect.backoff.ms": 20,
    "retry.backoff.ms": 20,
    # The longest wait between two connections.
    "reconnect.backoff.max.ms": 1_000,
    # By default librdkafka 2.16 returns to the bootstrap servers while no broker answers, which resets the backoff: it
    # makes fifty tries and log lines a second. Our clients live for one task, so they need no new addresses.
    "metadata.recovery.strategy": "none",
}


def read_client_config(environment: Mapping[str, str]) -> ClientConfig:
    """Return the configuration from `AIRFLOW_CONN_KAFKA_DEFAULT`; if that is not set, see `config_from_variables`.

    `KAFKA_BOOTSTRAP_SERVERS` also names the brokers if the connection is set but has no `bootstrap.servers`. Raise
    SettingError if neither names a broker, or a setting is invalid (see `to_client_config`).
    """
    connection = environment.get("AIRFLOW_CONN_KAFKA_DEFAULT", "").strip()
    servers = environment.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    if connection:
        config = to_client_config(_parse_extra(connection))
    else:
        config = to_client_config(config_from_variables(environment), "KAFKA_BOOTSTRAP_SERVERS")
    if servers and "bootstrap.servers" not in config:
        config |= to_client_config({"bootstrap.servers": servers}, "KAFKA_BOOTSTRAP_SERVERS")
    if not config.get("bootstrap.servers"):
        raise SettingError(
            "no Kafka broker is configured: set KAFKA_BOOTSTRAP_SERVERS=host:port, or AIRFLOW_CONN_KAFKA_DEFAULT with "
            '"bootstrap.servers" in its "extra"'
        )
    return config


def config_from_variables(environment: Mapping[str, str]) -> ClientConfig:
    """Return the configuration that `KAFKA_BOOTSTRAP_SERVERS` names; empty if it is not set.

    With `SASL_USERNAME` and `SASL_PASSWORD` it uses SASL_SSL and PLAIN, as Confluent Cloud requires.
    """
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


def _parse_extra(connection: str) -> ClientConfig:
    """Return the field extra of an Airflow connection, which is JSON or a URI."""
    try:
        if connection.startswith("{"):
            extra = json.loads(connection).get("extra") or {}
            config = json.loads(extra) if isinstance(extra, str) else extra
        else:
            query = dict(parse_qsl(urlsplit(connection).query))
            config = json.loads(query["__extra__"]) if "__extra__" in query else query
            config = {unquote(name): value for name, value in config.items()}
        return dict(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingError(
            "AIRFLOW_CONN_KAFKA_DEFAULT is not a valid connection: give "
            '{"conn_type": "kafka", "extra": {"bootstrap.servers": …}}'
        ) from error


def shared_config(config: ClientConfig) -> ClientConfig:
    """Return the settings that consumers, producers and admin clients share."""
    return _RETRY_CONFIG | {
        name: value for name, value in config.items() if name not in _CONSUMER_SETTINGS + _PRODUCER_SETTINGS
    }


def consumer_config(config: ClientConfig, group: str) -> ClientConfig:
    """Return the settings of a consumer that reads assigned offset ranges and the group's committed offsets.

    The caller must neither subscribe, which would join the group, nor commit.
    """
    return shared_config(config) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # A consumer reads one batch and is closed: it fetches with a short wait, and its buffer is the default one.
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": 65_536,
    }


def producer_config(config: ClientConfig) -> ClientConfig:
    """Return the settings of every producer of this product.

    They use the partitioner of Java clients, murmur2, so that all producers send the payments of a card to the same
    partition.
    """
    return shared_config(config) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "partitioner": "murmur2_random",
        "linger.ms": 20,
    }


def transactional_config(config: ClientConfig, transactional_id: str) -> ClientConfig:
    """Return the settings of a transactional producer."""
    return producer_config(config) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # Let the broker limit the size of a message: librdkafka's own limit is lower.
        "message.max.bytes": 100_000_000,
        # 128 MiB for messages that are not acknowledged yet. One message of message.max.bytes must fit.
        "queue.buffering.max.kbytes": 131_072,
    }
