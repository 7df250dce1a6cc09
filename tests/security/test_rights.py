"""Rights on Kafka: those in docs/security.md are enough, and each of them is necessary."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation, ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

from dev.stack.part import BIN, ROOT
from include.check.check_result import CheckResult, run_checks
from include.check.kafka_check import check_kafka
from include.errors import FraudError
from include.kafka.cluster import Cluster
from include.kafka.retention import read_retention
from include.ledger.connection import LedgerConnection
from include.ledger.recorded_batches import record_batches
from include.ledger.recorder import RecordingResult, record
from include.settings import Settings
from include.storage.staging import Storage
from tests.support import kafka_log
from tests.support.payments import FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.scoring import Scoring
from tests.support.secure_stack import Right, SecureStack
from tests.support.topics import send

SCORING, RECORDER = "the scoring", "the recorder"


def documented() -> dict[str, list[tuple[str, str]]]:
    """Return the page's table: rights by program, column and operation."""
    page = (ROOT / "docs" / "security.md").read_text().partition("### Kafka\n")[2].partition("\n### ")[0]
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    (_, *columns), _, *rows = [[cell.strip().replace("`", "") for cell in line] for line in lines]
    return {
        who: [
            (column, operation)
            for column, cell in zip(columns, cells, strict=True)
            for operation in cell.split(", ")
            if operation
        ]
        for who, *cells in rows
    }


TABLE = documented()
# Of the DAGs, which have one connection.
DAGS = TABLE[SCORING] + TABLE[RECORDER]
EACH = [(who, column, operation) for who, rights in TABLE.items() for column, operation in rights]
OPERATIONS = {
    "Read": AclOperation.READ, "Write": AclOperation.WRITE, "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE, "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}  # fmt: skip


def right(settings: Settings, column: str, operation: str) -> Right:
    topics = {
        "input topic": settings.input_topic,
        "output topic": settings.output_topic,
        "dead-letter topic": settings.dead_letter_topic,
        "output dead-letter topic": settings.output_dead_letter_topic,
    }
    groups = {"FRAUD_GROUP": settings.group, "FRAUD_LEDGER_GROUP": settings.ledger_group}
    allowed = OPERATIONS[operation]
    if column in topics:
        return Right(allowed, ResourceType.TOPIC, topics[column])
    kind, _, name = column.rpartition(" ")
    if kind == "group":
        return Right(allowed, ResourceType.GROUP, groups[name])
    assert kind == "transactional ids that begin with"
    group = groups[name.removesuffix("/")]
    return Right(allowed, ResourceType.TRANSACTIONAL_ID, f"{group}/", ResourcePatternType.PREFIXED)


class LackingError(Exception):
    """A missing right prevented an action or a result."""


# librdkafka's producer keeps to itself why it is of no use.
REFUSED_FOR_IT = "AUTHORIZATION_FAILED|_FATAL|its settings cannot be read|nobody knows how long"


@dataclasses.dataclass(frozen=True)
class Place:
    """Topics and a group of the test's own, which the superuser prepares."""

    secure: SecureStack
    settings: Settings

    @property
    def topics(self) -> list[str]:
        made = self.settings
        return [made.input_topic, made.output_topic, made.dead_letter_topic, made.output_dead_letter_topic]

    def make_topics(self) -> None:
        for future in self.secure.admin.create_topics([NewTopic(name, 1, 1) for name in self.topics]).values():
            future.result(30)

    def remove_topics(self) -> None:
        there = [name for name in self.secure.admin.list_topics(timeout=30).topics if name in self.topics]
        for future in (self.secure.admin.delete_topics(there) if there else {}).values():
            future.result(30)

    def send(self) -> None:
        """Send a payment, and a message that becomes a dead letter."""
        (payment,) = payments(GENUINE)
        send(self.secure.superuser, self.settings.input_topic, [(payment.key, payment.message), (None, b"no JSON")])

    def score(self, kafka: dict[str, Any]) -> None:
        Scoring(kafka, self.settings).run()

    def record(self, kafka: dict[str, Any], ledger: LedgerConnection) -> RecordingResult:
        return record(Cluster(kafka), self.settings, ledger)

    def command(self, kafka: dict[str, Any], *words: str, ledger: LedgerConnection | None = None) -> str:
        settings = {
            "INPUT_TOPIC": self.settings.input_topic,
            "OUTPUT_TOPIC": self.settings.output_topic,
            "DEAD_LETTER_TOPIC": self.settings.dead_letter_topic,
            "OUTPUT_DEAD_LETTER_TOPIC": self.settings.output_dead_letter_topic,
            "GROUP": self.settings.group,
            "LEDGER_GROUP": self.settings.ledger_group,
            "STAGING_URL": self.settings.staging_url,
        }
        environment = {f"FRAUD_{name}": value for name, value in settings.items()}
        environment["AIRFLOW_CONN_KAFKA_DEFAULT"] = json.dumps({"conn_type": "kafka", "extra": kafka})
        if ledger:
            environment["LOGGER_SQL_URI"] = f"postgresql://{ledger.user}:{ledger.password}@{ledger}"
        done = subprocess.run(
            [BIN / "fraud", *words],
            env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LackingError(done.stdout + done.stderr)
        return done.stdout


@pytest.fixture
def place(secure: SecureStack, tmp_path: Path) -> Iterator[Place]:
    """Names of topics that do not exist yet."""
    name = f"rights_{uuid.uuid4().hex[:8]}"
    made = secure.settings.override(
        input_topic=name, output_topic=f"{name}_scored", dead_letter_topic=f"{name}_dead",
        output_dead_letter_topic=f"{name}_refused", group=f"{name}_group", ledger_group=f"{name}_ledger",
        staging_url=str(tmp_path / "staging"),
    )  # fmt: skip
    yield Place(secure, made)
    Place(secure, made).remove_topics()


def score(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(kafka)
    for topic in (place.settings.output_topic, place.settings.dead_letter_topic):
        assert len(kafka_log.read_all(place.secure.superuser, topic)) == 1
    if read_retention(Cluster(kafka), place.settings.input_topic) is None:
        raise LackingError("nobody knows how long payments are kept")


def record_predictions(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(place.secure.superuser)
    send(place.secure.superuser, place.settings.output_topic, [(None, b"no prediction")])
    with place.secure.stack.own_ledger() as ledger:
        assert place.record(kafka, ledger).rows == 1
    assert len(kafka_log.read_all(place.secure.superuser, place.settings.output_dead_letter_topic)) == 1


def show_offsets(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(place.secure.superuser)
    assert "2" in place.command(kafka, "offsets", "show")


def set_offsets(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    assert "set from nothing to 2" in place.command(kafka, "offsets", "set", "--to", "latest", "--yes")


def verify(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(place.secure.superuser)
    assert "whole: 2 due" in place.command(kafka, "verify")


def reconcile(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(place.secure.superuser)
    with place.secure.stack.own_ledger() as ledger:
        place.record(place.secure.superuser, ledger)
        record_batches(Storage.open(place.settings.staging_url), ledger)
        place.command(kafka, "reconcile", ledger=ledger)


def ledger_offsets(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.send()
    place.score(place.secure.superuser)
    with place.secure.stack.own_ledger() as ledger:
        place.record(place.secure.superuser, ledger)
        assert place.settings.output_topic in place.command(kafka, "ledger", "show", ledger=ledger)
        assert "recorded again from 0 on" in place.command(kafka, "ledger", "rewind", "--to", "earliest", ledger=ledger)


def produce(place: Place, kafka: dict[str, Any]) -> None:
    place.make_topics()
    place.command(kafka, "produce", "simulate", "--count", "3", "--rate", "0")
    assert len(kafka_log.read_all(place.secure.superuser, place.settings.input_topic)) == 3


def topics(place: Place, kafka: dict[str, Any]) -> None:
    said = place.command(kafka, "topics")
    assert said.count("created") == 4
    said = place.command(kafka, "topics")
    if said.count("exists, as configured") < 4:
        raise LackingError(said)


ACTS: dict[str, Callable[[Place, dict[str, Any]], None]] = {
    SCORING: score,
    RECORDER: record_predictions,
    "fraud offsets show": show_offsets,
    "fraud offsets set": set_offsets,
    "fraud verify": verify,
    "fraud reconcile": reconcile,
    "fraud ledger": ledger_offsets,
    "fraud produce": produce,
    "fraud topics": topics,
}


def test_page_lists_the_rights_of_every_program() -> None:
    assert list(TABLE) == list(ACTS)
    assert all(TABLE.values())


@pytest.mark.parametrize("who", ACTS)
def test_documented_rights_are_enough(place: Place, who: str) -> None:
    with place.secure.user(right(place.settings, *one) for one in TABLE[who]) as kafka:
        ACTS[who](place, kafka)


def test_check_needs_no_further_right(place: Place) -> None:
    place.make_topics()
    with place.secure.user(right(place.settings, *one) for one in DAGS) as kafka:
        found = check(kafka, place.settings)
    assert wrong(found) == []
    assert "without" not in found[f"topic {place.settings.input_topic}"].text


@pytest.mark.parametrize(("column", "operation"), DAGS, ids=[" - ".join(one) for one in DAGS])
def test_check_names_missing_right(place: Place, column: str, operation: str) -> None:
    place.make_topics()
    rights = [right(place.settings, *one) for one in DAGS if one != (column, operation)]
    if operation in ("Read", "Write"):
        rights.append(right(place.settings, column, "Describe"))
    with place.secure.user(rights) as kafka:
        names_what_lacks(check(kafka, place.settings), place.settings, right(place.settings, column, operation))


@pytest.mark.parametrize(("who", "column", "operation"), EACH, ids=[" - ".join(one) for one in EACH])
def test_each_documented_right_is_necessary(place: Place, who: str, column: str, operation: str) -> None:
    rights = [right(place.settings, *one) for one in TABLE[who] if one != (column, operation)]
    assert len(rights) == len(TABLE[who]) - 1
    if operation in ("Read", "Write"):
        # Read and Write include Describe, which must stay.
        rights.append(right(place.settings, column, "Describe"))
    with place.secure.user(rights) as kafka, pytest.raises((FraudError, LackingError), match=REFUSED_FOR_IT):
        ACTS[who](place, kafka)


def names_what_lacks(found: dict[str, CheckResult], settings: Settings, lacking: Right) -> None:
    if lacking.operation == AclOperation.DESCRIBE_CONFIGS:
        # A run works without this right.
        assert wrong(found) == []
        assert "without the right DescribeConfigs" in found[f"topic {settings.input_topic}"].text
        return
    names = {
        ResourceType.TOPIC: f"topic {lacking.name}",
        ResourceType.GROUP: f"group {lacking.name}",
        ResourceType.TRANSACTIONAL_ID: f"transactional ids {lacking.name}…",
    }
    assert wrong(found) == [names[lacking.kind]]
    assert "lacks" in found[names[lacking.kind]].text


def test_whole_run_needs_no_further_right(secure: SecureStack) -> None:
    with secure.user(right(secure.settings, *one) for one in TABLE[SCORING]) as kafka:
        login = {name: value for name, value in kafka.items() if name.startswith("sasl.")}
        with secure.spoiled("kafka_default", extra=login):
            run_id, sent = secure.score(payments(GENUINE, FRAUD_FOR_LATEST))
    assert secure.counts(run_id, "publish")["published"] == len(sent)
    assert secure.verify().is_whole


def check(kafka: dict[str, Any], settings: Settings, **changes: Any) -> dict[str, CheckResult]:
    given = {name: value for name, value in (kafka | changes).items() if value is not None}
    return {one.name: one for one in run_checks([("tried", lambda: check_kafka(Cluster(given), settings))])}


def wrong(found: dict[str, CheckResult]) -> list[str]:
    return [name for name, one in found.items() if not one.ok]


REFUSED: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "a wrong password": (
        {"sasl.password": "wr0ng"}, ("cannot connect to Kafka as fraud", "check the user name and password"),
    ),
    "a certificate that is not trusted": (
        {"ssl.ca.location": None},
        ("cannot connect to Kafka", "certificate verify failed", "check the certificates"),
    ),
    "no encryption": (
        {"security.protocol": "PLAINTEXT"}, ("address and security.protocol are correct",),
    ),
    "a setting that does not exist": ({"ssl.ca.lcation": "x"}, ('No such configuration property: "ssl.ca.lcation"',)),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_check_reports_refused_connection(secure: SecureStack, which: str) -> None:
    changes, words = REFUSED[which]
    results = check(secure.kafka, secure.settings, **changes)
    assert list(results) == ["tried"]
    for word in words:
        assert word in results["tried"].text
    assert "wr0ng" not in results["tried"].text


def test_check_finds_connections_in_airflows_database(secure: SecureStack) -> None:
    environment = {name: value for name, value in secure.stack.env.items() if not name.startswith("AIRFLOW_CONN_")}
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all is well"
    assert "smtp_default" in done.stdout
    assert not [name for name, secret in secure.passwords.items() if secret in done.stdout + done.stderr]
