"""The product's topics: creates missing ones and compares existing ones with the settings, without changing them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from include.kafka.cluster import Cluster
from include.settings import Settings

_REQUEST_SECONDS = 30.0
_HOUR_MS = timedelta(hours=1) // timedelta(milliseconds=1)
# Kafka's default of max.message.bytes, for an input topic whose configuration cannot be read.
_DEFAULT_MESSAGE_BYTES = 1_048_588
_BROKER_DEFAULT = -1


@dataclass(frozen=True)
class TopicStatus:
    """The result of `Topics.ensure` for a topic. `differences` is None if the topic's configuration cannot be read."""

    topic: str
    created: bool
    differences: tuple[str, ...] | None = ()


class Topics:
    """The input topic, the output topic and the two topics of dead letters."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings

    def ensure(self) -> Iterator[TopicStatus]:
        """Create each topic if it is missing, and yield its status.

        Raise ClusterError if a topic is missing and cannot be created, or no broker answers.
        """
        settings = self._settings
        admin = self._cluster.admin
        with self._cluster.translate_errors("topics cannot be listed"), admin.raise_cause():
            existing = set(admin.list_topics(timeout=_REQUEST_SECONDS).topics)
        source = settings.input_topic
        created = source not in existing and self._create(source, {})
        metadata, config = self._await_metadata(source), self._read_config(source)
        yield self._compare(metadata, config, created=created, min_bytes=0)
        largest = int(config["max.message.bytes"] if config else _DEFAULT_MESSAGE_BYTES)
        outputs = (settings.output_topic, settings.dead_letter_topic, settings.output_dead_letter_topic)
        for name in dict.fromkeys(outputs):
            # Scored payments and dead letters are larger than their input messages, by headers and the prediction. They
            # need far less than twice the size, so a created topic has room, and an existing one is only required to
            # allow more than the input topic.
            created = name not in existing and self._create(name, {"max.message.bytes": str(2 * largest)})
            metadata, config = self._await_metadata(name), self._read_config(name)
            yield self._compare(metadata, config, created=created, min_bytes=largest + 1)

    def _create(self, name: str, config: dict[str, str]) -> bool:
        """Create a topic. Return False if another program has just created it."""
        settings = self._settings
        new = NewTopic(
            name,
            settings.topic_partitions,
            settings.topic_replication or _BROKER_DEFAULT,
            config=config | {"retention.ms": str(self._retention_ms)},
        )
        admin = self._cluster.admin
        with self._cluster.translate_errors(f"topic {name} does not exist and cannot be created"):
            try:
                admin.wait_for(admin.create_topics([new], operation_timeout=_REQUEST_SECONDS)[name])
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return False
        return True

    @property
    def _retention_ms(self) -> int:
        return round(self._settings.topic_retention_hours * _HOUR_MS)

    def _await_metadata(self, name: str) -> TopicMetadata:
        """Return the topic's metadata. Wait for it: brokers learn of a new topic a moment after the controller."""
        deadline = monotonic() + _REQUEST_SECONDS
        with self._cluster.translate_errors(f"topic {name} cannot be described"):
            while True:
                metadata: TopicMetadata = self._cluster.admin.list_topics(name, timeout=_REQUEST_SECONDS).topics[name]
                if metadata.error is None:
                    return metadata
                if metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or monotonic() > deadline:
                    raise KafkaException(metadata.error)
                sleep(0.05)

    def _read_config(self, name: str) -> dict[str, str] | None:
        """Return the topic's configuration, None without the right DescribeConfigs, which scoring does not need."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        admin = self._cluster.admin
        with self._cluster.translate_errors(f"the configuration of topic {name} cannot be read"):
            try:
                entries: dict[str, ConfigEntry] = admin.wait_for(admin.describe_configs([resource])[resource])
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise
                return None
        return {key: str(entry.value) for key, entry in entries.items()}

    def _compare(
        self, metadata: TopicMetadata, config: dict[str, str] | None, *, created: bool, min_bytes: int
    ) -> TopicStatus:
        """Return the status of a topic. `min_bytes` is the minimum for its max.message.bytes."""
        name = str(metadata.topic)
        if created:
            return TopicStatus(name, created=True)
        if config is None:
            return TopicStatus(name, created=False, differences=None)
        settings = self._settings
        partitions = len(metadata.partitions)
        replicas = min(len(partition.replicas) for partition in metadata.partitions.values())
        differences = []
        if partitions != settings.topic_partitions:
            differences.append(f"partitions {partitions} instead of {settings.topic_partitions}")
        if settings.topic_replication and replicas != settings.topic_replication:
            differences.append(f"replication {replicas} instead of {settings.topic_replication}")
        if (retention := int(config["retention.ms"])) != self._retention_ms:
            hours = "unlimited" if retention < 0 else f"{retention / _HOUR_MS:g} hours"
            differences.append(f"retention {hours} instead of {settings.topic_retention_hours:g} hours")
        if (policy := config["cleanup.policy"]) != "delete":
            differences.append(f"cleanup.policy {policy} instead of delete: Kafka keeps only the last payment of a key")
        if (limit := int(config["max.message.bytes"])) < min_bytes:
            differences.append(
                f"max.message.bytes {limit} instead of at least {min_bytes}: scored payments and dead letters are "
                "larger than their input messages"
            )
        return TopicStatus(name, created=False, differences=tuple(differences))
