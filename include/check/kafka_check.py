"""Kafka: the connection, the topics, and the rights to read, to write and to commit in one kafka transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin._acl import AclOperation

from include.check.check_result import CheckResult
from include.errors import ClusterError
from include.kafka.cluster import REQUEST_SECONDS, Cluster
from include.kafka.fenced_producers import fence
from include.settings import Settings

# A partition that no topic has: the probe's transactional id is of the product's kind, and fences no run.
_PROBE = -1
_MISSING = "does not exist: `fraud topics` creates it, or {} names another"


def check_kafka(cluster: Cluster, settings: Settings) -> Iterator[CheckResult]:
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
    # A producer that asks about a topic makes it, where the broker lets it.
    if source.text != _MISSING.format("FRAUD_INPUT_TOPIC"):
        yield _transactions(cluster, settings.group, settings.input_topic)
    if output.text != _MISSING.format("FRAUD_OUTPUT_TOPIC"):
        yield _transactions(cluster, settings.ledger_group, settings.output_topic)


def _topic(cluster: Cluster, topic: str, variable: str, *needed: AclOperation) -> CheckResult:
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
            return CheckResult(name, _MISSING.format(variable), ok=False)
        return CheckResult(name, str(error), ok=False)
    # None where the broker knows of no rights.
    rights = described.authorized_operations
    lacking = [operation for operation in needed if rights is not None and operation not in rights]
    if lacking:
        return CheckResult(name, f"the user lacks {_rights(lacking)} on it", ok=False)
    text = f"{len(described.partitions)} partitions, {_rights(needed).removeprefix('the ')}"
    if rights is not None and variable == "FRAUD_INPUT_TOPIC" and AclOperation.DESCRIBE_CONFIGS not in rights:
        # A run goes on without.
        text += "; without the right DescribeConfigs nobody is warned before payments expire unread"
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
        return CheckResult(name, "the user lacks the right Read on it", ok=False)
    return CheckResult(name, "nobody else is in it, right Read")


def _transactions(cluster: Cluster, group: str, topic: str) -> CheckResult:
    name = f"transactional ids {group}/…"
    try:
        fence(cluster, group, topic, [_PROBE])[_PROBE]
    except ClusterError as error:
        return CheckResult(name, str(error), ok=False)
    return CheckResult(name, "right Write")
