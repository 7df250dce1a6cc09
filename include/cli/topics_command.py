"""The command `fraud topics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.cli.console import JsonSwitch, output

if TYPE_CHECKING:
    from include.kafka.topics import TopicStatus


def topics(json: JsonSwitch = False) -> None:
    """Create the input topic, the output topic and the two dead-letter topics where they are missing.

    An existing topic is not changed; the command reports how it differs from FRAUD_TOPIC_PARTITIONS,
    FRAUD_TOPIC_REPLICATION and FRAUD_TOPIC_RETENTION_HOURS.

    Exit code 0: all topics exist; 1: a topic is missing and could not be created.
    """
    from include.kafka.cluster import Cluster
    from include.kafka.topics import Topics
    from include.settings import Settings

    out, found = output(json=json), []
    for topic in Topics(Cluster.from_environment(), Settings.from_environment()).ensure():
        found.append(topic)
        out.line(f"{topic.topic}: {_state(topic)}")
    out.document({"topics": found})


def _state(topic: TopicStatus) -> str:
    if topic.created:
        return "created"
    if topic.differences is None:
        return "exists; its settings cannot be read (the right DescribeConfigs is missing)"
    return f"exists, not changed: {'; '.join(topic.differences)}" if topic.differences else "exists, as configured"
