"""What commit 5fbbc81 stored is read, and its work is finished (README.md beside this file says what there is)."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from include.batch.manifest import Manifest
from include.batch.outbox import record_committed_batches
from include.kafka.cluster import Cluster
from include.ledger.connection import LedgerConnection
from include.ledger.payment_trace import trace
from include.ledger.recorded_batches import record_batches
from include.ledger.recorder import record
from include.ledger.schema import VERSION, migrate
from include.models.selection import Hold
from include.report.incident_files import IncidentFiles
from include.settings import Settings
from include.storage.staging import Storage
from tests.support import kafka_log
from tests.support.ledger import query, sources, upgrade
from tests.support.live_stack import LiveStack
from tests.support.payments import payment
from tests.support.scoring import DELIVERY, Scoring
from tests.support.topics import send
from tests.support.waiting import wait_until

STORED = Path(__file__).parent / "5fbbc81"
KAFKA: dict[str, Any] = json.loads((STORED / "kafka.json").read_text())
INPUT, OUTPUT = "stored_payments", "stored_scored"


def decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def fill(servers: str, topic: str) -> None:
    """Write the messages again, at the same offsets: a gap between two offsets was the end of a kafka transaction."""
    producer = kafka_log.producer(servers, f"fills {topic}")
    for _, messages in groupby(KAFKA["topics"][topic], key=lambda message: message["partition"]):
        rows = list(messages)
        for _, run in groupby(enumerate(rows), key=lambda pair: pair[1]["offset"] - pair[0]):
            producer.begin_transaction()
            for _, row in run:
                headers = [(name, decoded(value)) for name, value in row["headers"]]
                producer.produce(topic, decoded(row["value"]), decoded(row["key"]), row["partition"], headers=headers)
            producer.commit_transaction()


def committed(servers: str, offsets: list[TopicPartition]) -> bool:
    """Commit them. Return False where a broker that has just started refuses because it has no coordinator yet."""
    with closing(Consumer({"bootstrap.servers": servers, "group.id": "stored group"})) as consumer:
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                raise
            return False
    return True


@pytest.fixture
def pipeline(services: LiveStack, tmp_path: Path) -> Iterator[Scoring]:
    """Restore the topics, the group's offsets and the staging area as they were, with the topics' new ids."""
    servers = services.bootstrap_servers
    for topic in KAFKA["topics"]:
        kafka_log.make_topic(servers, 2 if topic == INPUT else 1, name=topic)
    # The payments came from a producer without kafka transactions.
    for row in KAFKA["topics"][INPUT]:
        kafka_log.send(servers, INPUT, [decoded(row["value"])], row["partition"])
    for topic in (OUTPUT, "stored_dead_letters"):
        fill(servers, topic)
    client: dict[str, Any] = {"bootstrap.servers": servers}
    cluster = Cluster(client)
    new_ids = {
        old.encode(): cluster.describe_topic(topic).topic_id.encode() for topic, old in KAFKA["topic_ids"].items()
    }
    staging = tmp_path / "staging"
    shutil.copytree(STORED / "staging", staging)
    for file in staging.rglob("*.json"):
        content, seal = file.read_bytes()[:-33], file.read_bytes()[-33:]
        assert seal == sealed(content)
        content = with_ids(content, new_ids)
        file.write_bytes(content + sealed(content))

    def renewed(note: str) -> str:
        return with_ids(note.encode(), new_ids).decode()

    offsets = [
        TopicPartition(INPUT, row["partition"], row["offset"], metadata=renewed(row["metadata"]))
        for row in KAFKA["committed"]
    ]
    wait_until(lambda: committed(servers, offsets), "the group's offsets are not committed", 60)
    names = {
        "input_topic": INPUT, "output_topic": OUTPUT, "dead_letter_topic": "stored_dead_letters",
        "output_dead_letter_topic": "stored_refused", "group": "stored group", "ledger_group": "stored ledger",
    }  # fmt: skip
    yield Scoring(client, Settings(**names, staging_url=str(staging), shards=2))
    kafka_log.delete_topics(servers, list(KAFKA["topics"]))


def sealed(content: bytes) -> bytes:
    return b"\n" + hashlib.sha256(content).hexdigest()[:32].encode()


def with_ids(content: bytes, new_ids: dict[bytes, bytes]) -> bytes:
    for old, new in new_ids.items():
        content = content.replace(old, new)
    return content


def manifests(pipeline: Scoring) -> list[Manifest]:
    topic = pipeline.cluster.describe_topic(INPUT)
    text = (STORED / "xcom_manifests.json").read_text().replace(KAFKA["topic_ids"][INPUT], topic.topic_id)
    return [Manifest.from_dict(plain) for plain in json.loads(text)]


@pytest.fixture
def earlier_ledger(empty_database: LedgerConnection, pipeline: Scoring) -> LedgerConnection:
    """Restore the ledger's tables at schema version 0001."""
    upgrade(empty_database, "0001")
    topic = pipeline.cluster.describe_topic(OUTPUT)
    where = empty_database
    with (
        closing(
            psycopg2.connect(
                host=where.host, port=where.port, dbname=where.database, user=where.user, password=where.password
            )
        ) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        # `confirmations` notes each change in `confirmation_changes` by a trigger: those rows are restored themselves.
        for table in ("exports", "predictions", "replaced_predictions", "recorded_offsets", "lost_offsets", "batches",
                      "batch_partitions", "confirmations", "confirmation_changes"):  # fmt: skip
            file = STORED / "ledger" / f"{table}.csv"
            columns = file.read_text().partition("\n")[0]
            cursor.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
            with file.open() as rows:
                cursor.copy_expert(f"COPY ledger.{table} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER)", rows)
            cursor.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER USER")
        cursor.execute("UPDATE ledger.recorded_offsets SET topic_id = %s", (topic.topic_id,))
    return empty_database


def test_later_version_finishes_what_an_earlier_one_stored(pipeline: Scoring, earlier_ledger: LedgerConnection):
    mailed, pending, half_published = manifests(pipeline)
    # Published already by the earlier version, but for one shard.
    for batch, shard in ((mailed, 0), (mailed, 1), (pending, 0), (pending, 1), (half_published, 0)):
        assert pipeline.publish(batch, shard=shard).predictions == 0
    assert pipeline.publish(half_published, shard=1).predictions == 1

    record_committed_batches(pipeline.cluster, pipeline.settings, pipeline.outbox)
    reports = {report.key: report for report in pipeline.outbox.pending_reports()}
    assert {key: report.facts.frauds for key, report in reports.items()} == {
        pending.batch_id: 2,
        half_published.batch_id: 3,
    }
    for report in reports.values():
        pipeline.outbox.record_delivery(report, DELIVERY)
    assert list(pipeline.outbox.pending_reports()) == []

    assert migrate(earlier_ledger) == ("0001", VERSION)
    assert record(pipeline.cluster, pipeline.settings, earlier_ledger).rows == 7
    numbers = [f"{INPUT}/0/{offset}/0" for offset in (0, 1, 3, 4, 5)] + [
        f"{INPUT}/1/{offset}/0" for offset in (0, 1, 2, 4, 5)
    ]
    assert [source for source, _ in sources(earlier_ledger)] == numbers
    record_batches(pipeline.storage, earlier_ledger)
    counts = "SELECT batch_id, scored, frauds, dead_letters FROM ledger.batches ORDER BY batch_id"
    assert query(earlier_ledger, counts) == [
        (mailed.batch_id, 3, 1, 1), (pending.batch_id, 4, 2, 1), (half_published.batch_id, 3, 3, 0),
    ]  # fmt: skip
    traced = trace(earlier_ledger, f"{1:032x}", mask=True)
    assert traced is not None
    assert [(verdict.fraud, verdict.by) for verdict in traced.verdicts] == [(True, "ann")]

    one = payment(99.5)
    send(pipeline.kafka, INPUT, [(one.key, one.message)], spread=1)
    new = pipeline.change(shards=1)
    assert [(part.partition, part.start, part.end) for part in new.drain().partitions] == [(0, 6, 7)]


def test_hold_and_incident_of_an_earlier_version_are_read(tmp_path: Path):
    assert Hold.from_json((STORED / "hold.json").read_text()) == Hold(
        run_id=f"{1:032x}", asked="previous", reason="too many frauds", who="ann",
        since="2026-01-01T00:00:00+00:00", model="models:/fraud_scoring/3",
    )  # fmt: skip
    shutil.copytree(STORED / "staging" / "incidents", tmp_path / "incidents")
    incidents = IncidentFiles(Storage.open(str(tmp_path)), "", "score_payments")
    incident = incidents.last("publish")
    assert incident is not None
    assert (incident.failures, incident.is_over, incident.told is None) == (1, False, False)
    assert incidents.close("publish")
