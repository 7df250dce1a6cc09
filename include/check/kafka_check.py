"""Check Kafka: the connection, topics, consumer groups, and the rights to read, write and use transactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin._acl import AclOperation

from include.check.check_result import CheckResult
from include.errors import ClusterError
from include.kafka.cluster import REQUEST_SECONDS, Cluster
from include.kafka.transactional_producers import fence
from include.settings import Settings

# No topic has this partition, so its transactional id has the product's prefix and fences no run.
_PROBE_PARTITION = -1
_MISSING_TOPIC = "does not exist: create it with `fraud topics`, or set {} to another"


def check_kafka(cluster: Cluster, settings: Settings) -> Iterator[CheckResult]:
    """Yield a result for the connection, each topic, each group and each group's transactional ids.

    Raise ClusterError if no broker can be reached.
    """
    with cluster.translate_errors("kafka_default cannot be used"):
        described = cluster.admin.wait_for(cluster.admin.describe_cluster(request_timeout=REQUEST_SECONDS))
    user = cluster.config.get("sasl.username")
    count = len(described.nodes)
    brokers = f"{count} broker{'' if count == 1 else 's'} at {cluster.config['bootstrap.servers']}"
    yield CheckResult("kafka_default", f"{brokers}, as {user}" if user else brokers)
    read, write = AclOperation.READ, AclOperation.WRITE
    source = _topic(cluster, settings.input_topic, "FRAUD_INPUT_TOPIC", read)
    output = _topic(cluster, settings.output_topic, "FRAUD_OUTPUT_TOPIC", write, read)
    yield source
    yield output
    yield _topic(cluster, settings.dead_letter_topic, "FRAUD_DEAD_LETTER_TOPIC", write)
    yield _topic(cluster, settings.output_dead_letter_topic, "FRAUD_OUTPUT_DEAD_LETTER_TOPIC", write)
    yield _group(cluster, settings.group)
    yield _group(cluster, settings.ledger_group)
    # A producer that requests metadata of a missing topic creates it, if the broker's auto.create.topics.enable is set.
    if source.text != _MISSING_TOPIC.format("FRAUD_INPUT_TOPIC"):
        yield _transactions(cluster, settings.group, settings.input_topic)
    if output.text != _MISSING_TOPIC.format("FRAUD_OUTPUT_TOPIC"):
        yield _transactions(cluster, settings.ledger_group, settings.output_topic)


def _topic(cluster: Cluster, topic: str, variable: str, *required: AclOperation) -> CheckResult:
    name = f"topic {topic}"
    try:
        with cluster.translate_errors(name):
            futures = cluster.admin.describe_topics(
                TopicCollection([topic]), include_authorized_operations=True, request_timeout=REQUEST_SECONDS
            )
            described = cluster.admin.wait_for(futures[topic])
    except ClusterError as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return CheckResult(name, _MISSING_TOPIC.format(variable), ok=False)
        return CheckResult(name, str(error), ok=False)
    # None if the broker has no authorizer.
    rights = described.authorized_operations
    missing = [operation for operation in required if rights is not None and operation not in rights]
    if missing:
        return CheckResult(
            name, f"the user lacks {_rights(missing)} on it: docs/security.md lists the rights", ok=False
        )
    text = f"{len(described.partitions)} partitions, {_rights(required).removeprefix('the ')}"
    if rights is not None and variable == "FRAUD_INPUT_TOPIC" and AclOperation.DESCRIBE_CONFIGS not in rights:
        # Runs work without it.
        text += "; without the right DescribeConfigs, no alarm warns before payments expire unread"
    return CheckResult(name, text)


def _rights(operations: Sequence[AclOperation]) -> str:
    names = " and ".join(operation.name.capitalize() for operation in operations)
    return f"the right{'s' if len(operations) > 1 else ''} {names}"


def _group(cluster: Cluster, group: str) -> CheckResult:
    name = f"group {group}"
    try:
        cluster.require_unused_group(group)
        with cluster.translate_errors(name):
            futures = cluster.admin.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=REQUEST_SECONDS
            )
            rights = cluster.admin.wait_for(futures[group]).authorized_operations
    except ClusterError as error:
        return CheckResult(name, str(error), ok=False)
    if rights is not None and AclOperation.READ not in rights:
        return CheckResult(name, "the user lacks the right Read on it: docs/security.md lists the rights", ok=False)
    return CheckResult(name, "no other consumer is in it, right Read")


def _transactions(cluster: Cluster, group: str, topic: str) -> CheckResult:
    name = f"transactional ids {group}/…"
    try:
        fence(cluster, group, topic, [_PROBE_PARTITION])[_PROBE_PARTITION]
    except ClusterError as error:
        return CheckResult(name, str(error), ok=False)
    return CheckResult(name, "right Write")
