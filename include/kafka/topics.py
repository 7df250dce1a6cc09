"""The topics: made where they are missing, held against the settings where they exist, and not changed there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep

from confluent_kafka import KafkaError as Reason
from confluent_kafka import KafkaException
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explained
from include.settings import Settings

_SECONDS = 30.0
_HOUR_MS = timedelta(hours=1) // timedelta(milliseconds=1)
# Kafka's own, for where the input topic's limit cannot be read.
_MESSAGE_BYTES = 1_048_588
_BROKERS_DEFAULT = -1


@dataclass(frozen=True)
class TopicStatus:
    """`differences` from the settings, of a topic that was there; None where its own settings cannot be read."""

    topic: str
    created: bool
    differences: tuple[str, ...] | None = ()


class Topics:
    def __init__(self, client: ClientConfig, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._admin = Admin(client)

    def settled(self) -> Iterator[TopicStatus]:
        """One after the other. Raises KafkaError where one is missing and cannot be made, or no broker answers."""
        settings = self._settings
        with explained("topics cannot be listed", self._client), self._admin.listening():
            there = set(self._admin.list_topics(timeout=_SECONDS).topics)
        source = settings.input_topic
        created = source not in there and self._create(source, {})
        known, read = self._known(source), self._configuration(source)
        yield self._judge(known, read, created=created, least_bytes=0)
        largest = int(read["max.message.bytes"] if read else _MESSAGE_BYTES)
        outputs = (settings.output_topic, settings.dead_letter_topic, settings.output_dead_letter_topic)
        for name in dict.fromkeys(outputs):
            # What comes in, with headers and the columns' names added, must fit into what goes out.
            created = name not in there and self._create(name, {"max.message.bytes": str(2 * largest)})
            known, read = self._known(name), self._configuration(name)
            yield self._judge(known, read, created=created, least_bytes=largest + 1)

    def _create(self, name: str, configuration: dict[str, str]) -> bool:
        """False where somebody else was faster."""
        settings = self._settings
        new = NewTopic(
            name,
            settings.topic_partitions,
            settings.topic_replication or _BROKERS_DEFAULT,
            config=configuration | {"retention.ms": str(self._retention)},
        )
        with explained(f"topic {name} does not exist and cannot be created", self._client):
            try:
                self._admin.answer(self._admin.create_topics([new], operation_timeout=_SECONDS)[name])
            except KafkaException as error:
                if error.args[0].code() != Reason.TOPIC_ALREADY_EXISTS:
                    raise
                return False
        return True

    @property
    def _retention(self) -> int:
        return round(self._settings.topic_retention_hours * _HOUR_MS)

    def _known(self, name: str) -> TopicMetadata:
        """Once the broker that is asked knows it, too: Kafka's answer said that its controller does."""
        deadline = monotonic() + _SECONDS
        with explained(f"topic {name} cannot be looked at", self._client):
            while True:
                known: TopicMetadata = self._admin.list_topics(name, timeout=_SECONDS).topics[name]
                if known.error is None:
                    return known
                if known.error.code() != Reason.UNKNOWN_TOPIC_OR_PART or monotonic() > deadline:
                    raise KafkaException(known.error)
                sleep(0.05)

    def _configuration(self, name: str) -> dict[str, str] | None:
        """None without the right to see it: the topic can be used all the same."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        with explained(f"the settings of topic {name} cannot be read", self._client):
            try:
                read: dict[str, ConfigEntry] = self._admin.answer(self._admin.describe_configs([resource])[resource])
            except KafkaException as error:
                if error.args[0].code() != Reason.TOPIC_AUTHORIZATION_FAILED:
                    raise
                return None
        return {key: str(entry.value) for key, entry in read.items()}

    def _judge(
        self, known: TopicMetadata, read: dict[str, str] | None, *, created: bool, least_bytes: int
    ) -> TopicStatus:
        if created:
            return TopicStatus(str(known.topic), created=True)
        if read is None:
            return TopicStatus(str(known.topic), created=False, differences=None)
        settings = self._settings
        partitions = len(known.partitions)
        replicas = min(len(partition.replicas) for partition in known.partitions.values())
        differences = []
        if partitions != settings.topic_partitions:
            differences.append(f"partitions {partitions} instead of {settings.topic_partitions}")
        if settings.topic_replication and replicas != settings.topic_replication:
            differences.append(f"replication {replicas} instead of {settings.topic_replication}")
        if (retention := int(read["retention.ms"])) != self._retention:
            kept = "for ever" if retention < 0 else f"{retention / _HOUR_MS:g} hours"
            differences.append(f"retention {kept} instead of {settings.topic_retention_hours:g} hours")
        if read["cleanup.policy"] != "delete":
            differences.append(f"cleanup.policy {read['cleanup.policy']} instead of delete: a key's payments get lost")
        if (limit := int(read["max.message.bytes"])) < least_bytes:
            differences.append(f"max.message.bytes {limit}, not above the input topic's: headers are added")
        return TopicStatus(str(known.topic), created=False, differences=tuple(differences))
