"""`fraud topics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from include.kafka.topics import TopicStatus

HELP = (
    "Create the input topic, the output topic and the two for dead letters (what cannot be scored, and what cannot be "
    "recorded) where they are missing.\n\n"
    "One that exists is left as it is, and what differs from FRAUD_TOPIC_PARTITIONS, FRAUD_TOPIC_REPLICATION and "
    "FRAUD_TOPIC_RETENTION_HOURS is said. Exit code 1: one is missing and could not be made."
)


def topics() -> None:
    """See HELP."""
    from include.kafka.cluster import Cluster
    from include.kafka.topics import Topics
    from include.settings import Settings

    for one in Topics(Cluster.from_environment(), Settings.from_environment()).ensure():
        typer.echo(f"{one.topic}: {_state(one)}")


def _state(one: TopicStatus) -> str:
    if one.created:
        return "created"
    if one.differences is None:
        return "there; its settings cannot be seen (the right DescribeConfigs)"
    return f"there, left as it is: {'; '.join(one.differences)}" if one.differences else "there, as set"
