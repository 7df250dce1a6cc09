"""Kafka: the connection, the topics, and the rights to read, to write and to commit in one kafka transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaError as Reason
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin._acl import AclOperation

from include.check.check_result import CheckResult
from include.errors import KafkaError
from include.kafka.admin import Admin
from include.kafka.client_config import ClientConfig, explained
from include.kafka.committed_offsets import REQUEST_SECONDS, require_unused_group
from include.kafka.transaction import fence
from include.settings import Settings

# A partition that no topic has: the probe's transactional id is of the product's kind, and fences no run.
_PROBE = -1
_MISSING = "does not exist: `fraud topics` creates it, or {} names another"


def check_kafka(client: ClientConfig, settings: Settings) -> Iterator[CheckResult]:
    admin = Admin(client)
    with explained("kafka_default cannot be used", client):
        cluster = admin.answer(admin.describe_cluster(request_timeout=REQUEST_SECONDS))
    user = client.get("sasl.username")
    count = len(cluster.nodes)
    brokers = f"{count} broker{'' if count == 1 else 's'} at {client['bootstrap.servers']}"
    yield CheckResult("kafka_default", f"{brokers}, as {user}" if user else brokers)
    read, write = AclOperation.READ, AclOperation.WRITE
    source = _topic(admin, client, settings.input_topic, "FRAUD_INPUT_TOPIC", read)
    output = _topic(admin, client, settings.output_topic, "FRAUD_OUTPUT_TOPIC", write, read)
    yield source
    yield output
    yield _topic(admin, client, settings.dead_letter_topic, "FRAUD_DEAD_LETTER_TOPIC", write)
    yield _topic(admin, client, settings.output_dead_letter_topic, "FRAUD_OUTPUT_DEAD_LETTER_TOPIC", write)
    yield _group(admin, client, settings.group)
    yield _group(admin, client, settings.ledger_group)
    # A producer that asks about a topic makes it, where the broker lets it.
    if source.text != _MISSING.format("FRAUD_INPUT_TOPIC"):
        yield _transactions(client, settings.group, settings.input_topic)
    if output.text != _MISSING.format("FRAUD_OUTPUT_TOPIC"):
        yield _transactions(client, settings.ledger_group, settings.output_topic)


def _topic(admin: Admin, client: ClientConfig, topic: str, variable: str, *needed: AclOperation) -> CheckResult:
    name = f"topic {topic}"
    try:
        with explained(name, client):
            asked = admin.describe_topics(
                TopicCollection([topic]), include_authorized_operations=True, request_timeout=REQUEST_SECONDS
            )
            described = admin.answer(asked[topic])
    except KafkaError as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and cause.args[0].code() == Reason.UNKNOWN_TOPIC_OR_PART:
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


def _group(admin: Admin, client: ClientConfig, group: str) -> CheckResult:
    name = f"group {group}"
    try:
        require_unused_group(admin, client, group)
        with explained(name, client):
            asked = admin.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=REQUEST_SECONDS
            )
            rights = admin.answer(asked[group]).authorized_operations
    except KafkaError as error:
        return CheckResult(name, str(error), ok=False)
    if rights is not None and AclOperation.READ not in rights:
        return CheckResult(name, "the user lacks the right Read on it", ok=False)
    return CheckResult(name, "nobody else is in it, right Read")


def _transactions(client: ClientConfig, group: str, topic: str) -> CheckResult:
    name = f"transactional ids {group}/…"
    try:
        fence(client, group, topic, [_PROBE])[_PROBE]
    except KafkaError as error:
        return CheckResult(name, str(error), ok=False)
    return CheckResult(name, "right Write")
