"""The protocol against a real broker: each payment is published once, even if steps are repeated, frozen or killed."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from include.batch.alarm_texts import OFFSETS_MOVED
from include.batch.manifest import Manifest
from include.batch.outbox import record_committed_batches
from include.batch.predict import predict
from include.batch.publish import Outcome
from include.batch.scored_batch import ScoredBatch
from include.errors import (
    BrokerUnresponsiveError,
    ClusterError,
    GroupInUseError,
    HangingTransactionError,
    OffsetsChangedError,
    StagingError,
    TopicChangedError,
)
from include.kafka import cluster, transaction, transactional_producers
from include.kafka.admin import Admin
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.group_admin import set_offsets
from include.models.model_run import ModelRun
from include.settings import Settings
from tests.support import kafka_log
from tests.support.live_stack import LiveStack
from tests.support.publisher import HaltedProcess, publisher
from tests.support.scoring import DELIVERY, MODEL, Scoring
from tests.support.waiting import wait_until

Make = Callable[..., Scoring]
BEFORE_COMMIT = ("before fence", "before transaction", "produced", "offsets sent")


def payments(*numbers: int) -> list[bytes]:
    return [b'{"columns":["n"],"index":[0],"data":[[%d]]}' % number for number in numbers]


def servers(scoring: Scoring) -> str:
    return str(scoring.kafka["bootstrap.servers"])


def send(scoring: Scoring, *values: bytes | None, partition: int = 0) -> None:
    kafka_log.send(servers(scoring), scoring.settings.input_topic, values, partition)


def sources(scoring: Scoring, topic: str) -> list[str]:
    """Return the sources of the committed messages of a topic: partition and offset, sorted."""
    found = [dict(message.headers() or [])["source"] or b"" for message in kafka_log.read_all(servers(scoring), topic)]
    return sorted(source.decode().partition("/")[2] for source in found)


def scored(scoring: Scoring) -> list[str]:
    return sources(scoring, scoring.settings.output_topic)


def dead(scoring: Scoring) -> list[str]:
    return sources(scoring, scoring.settings.dead_letter_topic)


def pending_batches(scoring: Scoring) -> list[str]:
    return [report.key for report in scoring.outbox.pending_reports()]


def admin(scoring: Scoring) -> AdminClient:
    return Admin(scoring.kafka)


def committed_offsets(scoring: Scoring) -> dict[int, int | None]:
    with scoring.group() as group:
        return {partition: committed.offset for partition, committed in group.committed_offsets().items()}


def set_offset(scoring: Scoring, offset: int, partition: int = 0) -> None:
    """Commit an offset as `kafka-consumer-groups.sh --reset-offsets` does."""
    place = TopicPartition(scoring.settings.input_topic, partition, offset)
    client = admin(scoring)
    wanted = ConsumerGroupTopicPartitions(scoring.settings.group, [place])
    (answer,) = client.alter_consumer_group_offsets([wanted]).values()
    assert answer.result(30).topic_partitions[0].error is None


def start_publisher(scoring: Scoring, manifest: Manifest, stop_at: str) -> HaltedProcess:
    settings = scoring.settings
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": servers(scoring),
        "FRAUD_INPUT_TOPIC": settings.input_topic,
        "FRAUD_OUTPUT_TOPIC": settings.output_topic,
        "FRAUD_DEAD_LETTER_TOPIC": settings.dead_letter_topic,
        "FRAUD_GROUP": settings.group,
        "FRAUD_STAGING_URL": settings.staging_url,
        "PYTHONPATH": os.pathsep.join(("plugins", ".")),
    }
    return publisher(manifest.batch_id, stop_at, environment)


# Reading.


def test_first_start_begins_at_the_earliest_payment(scoring: Make):
    here = scoring(2)
    send(here, *payments(1, 2), None)
    send(here, *payments(3), partition=1)
    manifest = here.drain()
    assert [(part.partition, part.start, part.end, part.committed_before) for part in manifest.partitions] == [
        (0, 0, 3, None),
        (1, 0, 1, None),
    ]
    assert (manifest.payments, manifest.dead_letters, manifest.columns) == (3, 1, ("n",))
    here.predict_without_model(manifest)
    published = here.publish(manifest)
    assert published.outcomes == {0: Outcome.PUBLISHED, 1: Outcome.PUBLISHED}
    assert (published.predictions, published.dead_letters) == (3, 1)
    assert scored(here) == ["0/0", "0/1", "1/0"]
    assert dead(here) == ["0/2"]
    assert committed_offsets(here) == {0: 3, 1: 1}


def test_run_without_payments_stages_nothing(scoring: Make):
    here = scoring(3)
    assert here.drain().partitions == ()
    send(here, *payments(1))
    here.run()
    staged = here.storage.list("batches")
    manifest = here.drain()
    assert manifest.partitions == ()
    assert here.storage.list("batches") == staged
    assert here.storage.read(f"{manifest.folder}/manifest.json") is None


def test_run_reads_up_to_max_payments_and_counts_the_lag(scoring: Make):
    here = scoring().change(max_payments=4)
    send(here, *payments(*range(10)))
    manifest = here.drain_and_predict()
    assert (manifest.payments, manifest.left_for_later_runs) == (4, 6)
    here.publish(manifest)
    assert (here.run().predictions, here.run().predictions) == (4, 2)
    assert scored(here) == [f"0/{offset}" for offset in range(10)]


def test_group_of_another_consumer_continues_at_its_offset(scoring: Make):
    here = scoring(2)
    send(here, *payments(1, 2, 3))
    earlier = Consumer({"bootstrap.servers": servers(here), "group.id": here.settings.group})
    earlier.commit(offsets=[TopicPartition(here.settings.input_topic, 0, 2)], asynchronous=False)
    earlier.close()
    here.run()
    assert scored(here) == ["0/2"]


def test_aborted_payments_are_skipped_and_the_offset_advances(scoring: Make):
    here = scoring()
    client = kafka_log.producer(servers(here), f"aborting {here.settings.input_topic}")
    for _ in range(2):
        client.begin_transaction()
        client.produce(here.settings.input_topic, payments(1)[0], partition=0)
        client.flush()
        client.abort_transaction()
    manifest = here.drain_and_predict()
    assert (manifest.payments, manifest.dead_letters) == (0, 0)
    assert here.publish(manifest).outcomes == {0: Outcome.PUBLISHED}
    assert committed_offsets(here) == {0: 4}
    assert here.drain().partitions == ()
    assert scored(here) == dead(here) == pending_batches(here) == []


def test_run_waits_for_a_producers_open_transaction(scoring: Make):
    here = scoring()
    send(here, *payments(1))
    client = kafka_log.producer(servers(here), f"open {here.settings.input_topic}")
    client.begin_transaction()
    client.produce(here.settings.input_topic, payments(2)[0], partition=0)
    client.flush()
    send(here, *payments(3))
    here.run()
    assert scored(here) == ["0/0"]
    client.commit_transaction()
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/2"]


def test_expired_payments_are_counted_and_the_rest_is_scored(scoring: Make, caplog: pytest.LogCaptureFixture):
    here = scoring(2)
    send(here, *payments(1, 2, 3, 4, 5))
    send(here, *payments(1, 2), partition=1)
    here.change(max_payments=1).run()
    client = admin(here)
    gone = [TopicPartition(here.settings.input_topic, 0, 4), TopicPartition(here.settings.input_topic, 1, 2)]
    for answer in client.delete_records(gone).values():
        answer.result(30)
    manifest = here.drain_and_predict()
    assert [(part.committed_before, part.start, part.end, part.lost) for part in manifest.partitions] == [
        (1, 4, 5, 3),
        (1, 2, 2, 1),
    ]
    assert manifest.lost == 4
    assert "3 offsets from 1 to 4 expired before they were read" in caplog.text
    here.publish(manifest)
    assert scored(here) == ["0/0", "0/4", "1/0"]
    assert committed_offsets(here) == {0: 5, 1: 2}
    # The alarm is raised once.
    assert here.drain().partitions == ()


def test_payments_that_expire_after_plan_are_counted_by_the_next_run(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2, 3))
    here.change(max_payments=1).run()
    manifest = here.plan(1)
    client = admin(here)
    for answer in client.delete_records([TopicPartition(here.settings.input_topic, 0, 2)]).values():
        answer.result(30)
    with pytest.raises(ClusterError, match="/0 cannot be read: offsets of the range have expired; the next run"):
        here.drain_shard(manifest, 0)
    following = here.drain_and_predict()
    assert following.lost == 1
    here.publish(following)
    assert scored(here) == ["0/0", "0/2"]


@pytest.mark.skipif(sys.platform != "linux", reason="where else librdkafka lies is not known here")
def test_unreadable_header_stops_no_other_message(scoring: Make):
    here = scoring()
    # So many that Python specializes the call that reads headers: see include/kafka/headers.py.
    send(here, *payments(*range(100)))
    for value in (payments(1)[0], b"no JSON"):
        kafka_log.send_with_header(servers(here), here.settings.input_topic, value, b"\xff\xfe")
    send(here, *payments(2))
    here.run()
    assert scored(here) == sorted(f"0/{offset}" for offset in range(103) if offset != 101)
    assert dead(here) == ["0/101"]


# Refusing.


def test_group_in_use_is_refused_with_its_member(scoring: Make):
    here = scoring()
    send(here, *payments(1))
    with member_of(here):
        with pytest.raises(GroupInUseError, match=r"is STABLE: it is in use by a-stranger on /127.0.0.1. Stop that"):
            here.drain()
        assert committed_offsets(here) == {0: None}
    here.run()
    assert scored(here) == ["0/0"]


@contextmanager
def member_of(scoring: Scoring) -> Iterator[None]:
    settings = {"group.id": scoring.settings.group, "client.id": "a-stranger", "enable.auto.commit": False}
    stranger = Consumer({"bootstrap.servers": servers(scoring)} | settings)
    stranger.subscribe([scoring.settings.input_topic])
    until = time.monotonic() + 30
    while not stranger.assignment():
        assert time.monotonic() < until
        stranger.poll(0.1)
    try:
        yield
    finally:
        stranger.close()


def test_missing_topic_is_named(scoring: Make):
    here = scoring().change(input_topic="missing_topic")
    with pytest.raises(ClusterError, match=r"^topic missing_topic cannot be described: .*does not exist: create it$"):
        here.drain()


def test_unreachable_broker_is_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cluster.REQUEST_SECONDS <= 15
    monkeypatch.setattr(cluster, "REQUEST_SECONDS", 2.0)
    away = Scoring({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, Settings(staging_url=str(tmp_path)))
    began = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"at 127\.0\.0\.1:1: check that the broker is running and .* correct$"
    ) as caught:
        away.drain()
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)


def test_recreated_topic_is_refused_until_an_offset_is_set(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    here.run()
    send(here, *payments(3))
    drained = here.drain_and_predict()
    recreate_topic(here)
    send(here, *payments(*range(10, 20)))
    with pytest.raises(TopicChangedError, match=r"was deleted and recreated .*says how to choose where it starts"):
        here.publish(drained)
    # Kafka deletes the group's offsets with the topic.
    with pytest.raises(TopicChangedError, match=f"recreated \\(id {drained.topic_id}, now .*after offset 2"):
        here.drain()
    # A person restores the offset as it was.
    note = CommitNote("b", drained.topic_id, "now").encode()
    place = TopicPartition(here.settings.input_topic, 0, 2, metadata=note)
    consumer = Consumer({"bootstrap.servers": servers(here), "group.id": here.settings.group})
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    with pytest.raises(TopicChangedError, match=f"recreated \\(id {drained.topic_id}, now .*after offset 2"):
        here.drain()
    # The remedy of the error.
    set_offset(here, 0)
    here.run()
    assert scored(here) == sorted(["0/0", "0/1", *(f"0/{offset}" for offset in range(10))])


def recreate_topic(scoring: Scoring) -> None:
    topic = scoring.settings.input_topic
    client = admin(scoring)
    client.delete_topics([topic])[topic].result(30)
    until = time.monotonic() + 30
    while topic in client.list_topics(timeout=10).topics:
        assert time.monotonic() < until
    kafka_log.make_topic(servers(scoring), name=topic)


def test_missing_offsets_are_refused_until_an_offset_is_set(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    here.run()
    here.forget_group()
    with pytest.raises(TopicChangedError, match=r"offset is gone; it had reached 2.*`fraud offsets set"):
        here.drain()
    set_offset(here, 2)
    send(here, *payments(3))
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/2"]


def test_offset_past_the_end_is_refused(scoring: Make):
    here = scoring()
    send(here, *payments(1))
    set_offset(here, 7)
    with pytest.raises(TopicChangedError, match="committed offset 7 is past the last stable offset 1:"):
        here.drain()


# Publishing.


def test_second_publish_of_a_batch_publishes_nothing(scoring: Make):
    here = scoring(2)
    send(here, *payments(1, 2), b"no JSON")
    send(here, *payments(3), partition=1)
    manifest = here.drain_and_predict()
    here.publish(manifest)
    again = here.publish(manifest)
    assert again.outcomes == {0: Outcome.ALREADY_PUBLISHED, 1: Outcome.ALREADY_PUBLISHED}
    assert (again.predictions, again.dead_letters) == (0, 0)
    # The same after later batches.
    send(here, *payments(4))
    here.run()
    assert set(here.publish(manifest).outcomes.values()) == {Outcome.ALREADY_PUBLISHED}
    assert scored(here) == ["0/0", "0/1", "0/3", "1/0"]
    assert dead(here) == ["0/2"]


def test_batch_that_another_batch_has_committed_publishes_and_mails_nothing(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    first, second = here.drain_and_predict(), here.drain_and_predict()
    here.publish(second)
    assert here.publish(first).outcomes == {0: Outcome.PUBLISHED_BY_ANOTHER}
    here.drain()
    assert pending_batches(here) == [second.batch_id]
    assert scored(here) == ["0/0", "0/1"]


@pytest.mark.parametrize("offset", [0, 1, 4, 5])
def test_moved_offset_stops_a_batch_in_flight(scoring: Make, offset: int):
    here = scoring()
    send(here, *payments(1, 2))
    here.run()
    send(here, *payments(3, 4, 5))
    manifest = here.drain_and_predict()
    set_offset(here, offset)
    message = (
        rf"committed offset of .*/0 is {offset}, but batch {manifest.batch_id} of offsets \[2, 5\) was planned when "
        "it was 2"
    )
    with pytest.raises(OffsetsChangedError, match=message):
        here.publish(manifest)
    assert scored(here) == ["0/0", "0/1"]
    # The next run starts at the committed offset, and the stopped batch has no pending report.
    following = here.drain_and_predict()
    (alarm,) = [one for one in here.alarms(following) if one.kind == OFFSETS_MOVED]
    way = "2 to be scored again", "1 to be scored again", "", "", "2 skipped", "3 skipped"
    assert alarm.sentence.endswith(f"/0 from 2 to {offset} ({way[offset]}).")
    here.publish(following)
    # The alarm is raised once: a batch commits the offset, even if it has no payment.
    assert here.drain().partitions == ()
    assert scored(here) == sorted(["0/0", "0/1", *(f"0/{place}" for place in range(offset, 5))])
    here.drain()
    assert manifest.batch_id not in here.outbox.entries()


def test_group_taken_over_from_another_program_raises_no_alarm(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2, 3))
    set_offset(here, 1)
    manifest = here.drain_and_predict()
    assert [(part.start, part.moved_from) for part in manifest.partitions] == [(1, None)]
    assert here.alarms(manifest) == []
    here.publish(manifest)
    assert scored(here) == ["0/1", "0/2"]


def test_other_programs_commit_on_a_partition_without_a_batch_raises_the_alarm(scoring: Make):
    here = scoring(2)
    send(here, *payments(1), partition=1)
    here.run()
    send(here, *payments(1, 2, 3))
    set_offset(here, 2)
    following = here.drain_and_predict()
    (alarm,) = here.alarms(following)
    assert alarm.sentence.endswith("/0 from 0 to 2 (2 skipped).")
    here.publish(following)
    assert scored(here) == ["0/2", "1/0"]


def test_partition_taken_over_from_another_program_raises_no_alarm(scoring: Make):
    """Not even if its first batch failed and committed the other partitions only."""
    here = scoring(3)
    for partition in range(2):
        send(here, *payments(1, 2, 3), partition=partition)
    for partition in range(3):
        set_offset(here, 0 if partition == 2 else 1, partition)
    manifest = here.drain_and_predict()
    predictions(here, manifest, 0).unlink()
    with pytest.raises(StagingError):
        here.publish(manifest)
    following = here.drain_and_predict()
    assert [(part.partition, part.moved_from) for part in following.partitions] == [(0, None)]
    # The same if an operator has set another partition, as an error asks for.
    other = scoring(2)
    for partition in range(2):
        send(other, *payments(1, 2), partition=partition)
        set_offset(other, 1, partition)
    with other.group() as group:
        set_offsets(group, {0: 0}, "set by operator x", datetime.now(UTC))
    assert [part.moved_from for part in other.drain().partitions] == [None, None]
    # A partition without payments is refreshed, and belongs to this group from then on.
    send(here, *payments(1, 2), partition=2)
    set_offset(here, 1, 2)
    assert [part.moved_from for part in here.drain().partitions] == [None, 0]


def predictions(scoring: Scoring, manifest: Manifest, partition: int) -> Path:
    (path,) = Path(scoring.settings.staging_url, manifest.folder).rglob(f"predictions-{partition}-0.parquet")
    return path


@pytest.mark.parametrize("point", ["before transaction", "produced"])
def test_offset_moved_during_the_transaction_stops_the_batch(scoring: Make, point: str):
    """Fencing does not stop such a commit, and the batch's own commit would overwrite it."""
    here = scoring()
    send(here, *payments(1, 2, 3))
    manifest = here.drain_and_predict()
    with pytest.raises(OffsetsChangedError, match=r"/0 is 1, but .* another program committed the offset"):
        here.publish(manifest, lambda passed: set_offset(here, 1) if passed == point else None)
    assert scored(here) == []
    here.run()
    assert scored(here) == ["0/1", "0/2"]


@pytest.mark.parametrize("point", ["offsets sent", "committed"])
@pytest.mark.parametrize("offset", [0, 4, 5])
def test_offset_moved_during_the_commit_keeps_the_report(scoring: Make, point: str, offset: int):
    """Whichever of two simultaneous commits Kafka keeps, the batch is published and its report is pending."""
    here = scoring()
    send(here, *payments(1, 2, 3, 4, 5, 6))
    set_offset(here, 3)
    manifest = here.drain_and_predict()
    with suppress(OffsetsChangedError):
        here.publish(manifest, lambda passed: set_offset(here, offset) if passed == point else None)
    assert here.publish(manifest).outcomes == {0: Outcome.ALREADY_PUBLISHED}
    following = here.drain_and_predict()
    sentences = [one.sentence for one in here.alarms(following)]
    (committed,) = {place or 0 for place in committed_offsets(here).values()}
    assert committed in (offset, 6)
    assert [sentence.rpartition("/0 from ")[2] for sentence in sentences] == (
        [f"6 to {offset} ({6 - offset} to be scored again)."] if committed == offset else []
    )
    assert pending_batches(here) == [manifest.batch_id]
    here.publish(following)
    assert scored(here) == sorted(f"0/{place}" for place in [3, 4, 5, *range(committed, 6)])


def test_batch_is_not_published_again_after_the_group_was_set_back(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    here.run()
    send(here, *payments(3, 4))
    manifest = here.drain_and_predict()
    here.publish(manifest)
    for to in (2, None):
        if to is None:
            here.forget_group()
        else:
            set_offset(here, to)
        assert here.publish(manifest).outcomes == {0: Outcome.ALREADY_PUBLISHED}
        assert scored(here) == ["0/0", "0/1", "0/2", "0/3"]


def test_first_batch_is_not_published_again_after_the_group_was_deleted(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    manifest = here.drain_and_predict()
    here.publish(manifest)
    here.forget_group()
    assert here.publish(manifest).outcomes == {0: Outcome.ALREADY_PUBLISHED}
    assert scored(here) == ["0/0", "0/1"]


def test_second_publish_of_an_old_batch_keeps_the_checkpoint(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    old = here.drain_and_predict()
    here.publish(old)
    send(here, *payments(3, 4, 5))
    here.run()
    here.publish(old)
    here.forget_group()
    here.publish(old)
    with pytest.raises(TopicChangedError, match="it had reached 5"):
        here.drain()


def test_damaged_checkpoint_is_refused_until_an_offset_is_set(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    here.run()
    (path,) = Path(here.settings.staging_url, "progress").rglob("0.json")
    path.write_bytes(b"damaged")
    set_offset(here, 1)
    with pytest.raises(StagingError, match=r"progress/.*/0\.json is damaged.*`fraud offsets set --partition 0`"):
        here.drain()


def test_late_attempt_changes_neither_messages_nor_report(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    here = scoring(2)
    for partition in range(2):
        send(here, *payments(*range(6)), partition=partition)
    manifest = here.drain_and_predict()

    def late(point: str) -> None:
        """Drain and predict again with other chunks and other predictions, as a late attempt does."""
        if point in ("before fence", "committed"):
            monkeypatch.setattr("include.batch.drain._MAX_BUFFERED_ROWS", 2 if point == "committed" else 3)
            here.drain_shard(Manifest.load_plan(here.storage, manifest.batch_id), 0)
            here.predict_without_model(manifest, lambda offset: offset == 1)

    here.publish(manifest, late)
    late("committed")
    assert here.publish(manifest).outcomes == dict.fromkeys(range(2), Outcome.ALREADY_PUBLISHED)
    every = [f"{partition}/{offset}" for partition in range(2) for offset in range(6)]
    assert scored(here) == every
    values = [message.value() for message in kafka_log.read_all(servers(here), here.settings.output_topic)]
    assert all(b'"is_fraud":1' in (value or b"") for value in values)
    (report,) = here.outbox.pending_reports()
    assert [fraud.source.partition("/")[2] for fraud in report.frauds] == every
    assert report.facts.frauds == 12


def test_predictions_that_differ_from_the_counts_are_not_published(scoring: Make):
    here = scoring()
    send(here, *payments(*range(6)))
    manifest = here.drain_and_predict()
    counted = ScoredBatch.load_shard(here.storage, manifest.folder, 0)
    fewer = replace(counted, partitions=tuple(replace(one, scored=one.scored - 1) for one in counted.partitions))
    fewer.save(here.storage, manifest.folder)
    with pytest.raises(StagingError, match="partition 0: 1 more rows are staged than were counted"):
        here.publish(manifest)
    assert scored(here) == []


def test_committed_partition_has_a_report_although_another_failed(scoring: Make):
    here = scoring(2)
    for partition in range(2):
        send(here, *payments(1, 2), partition=partition)
    manifest = here.drain_and_predict()
    here.storage.delete(f"{manifest.partitions[1].staged}/payments-1-0.parquet")
    with pytest.raises(StagingError, match="payments-1-0"):
        here.publish(manifest)
    assert scored(here) == ["0/0", "0/1"]
    (report,) = here.outbox.pending_reports()
    assert report.facts.ranges == ((here.settings.input_topic, 0, 0, 2),)
    assert [fraud.source for fraud in report.frauds] == [f"{here.settings.input_topic}/0/{n}" for n in range(2)]
    here.outbox.record_delivery(report, DELIVERY)
    following = here.drain_and_predict()
    assert [part.partition for part in following.partitions] == [1]
    here.publish(following)
    assert scored(here) == ["0/0", "0/1", "1/0", "1/1"]
    assert pending_batches(here) == [following.batch_id]


def test_failed_partition_stops_no_other(scoring: Make):
    here = scoring(3)
    for partition in range(3):
        send(here, *payments(1, 2), partition=partition)
    manifest = here.drain_and_predict()
    predictions(here, manifest, 0).write_bytes(b"damaged")
    with pytest.raises(StagingError, match="predictions-0-0"):
        here.publish(manifest)
    assert scored(here) == ["1/0", "1/1", "2/0", "2/1"]
    assert committed_offsets(here) == {0: None, 1: 2, 2: 2}
    here.run()
    assert scored(here) == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]


def test_batch_is_not_scored_again_once_publishing_has_begun(scoring: Make):
    here = scoring(2)
    for partition in range(2):
        send(here, *payments(1, 2), partition=partition)
    manifest = here.drain_and_predict()
    path = f"{manifest.partitions[1].staged}/payments-1-0.parquet"
    whole = here.storage.need(path)
    here.storage.delete(path)
    with pytest.raises(StagingError):
        here.publish(manifest)
    here.storage.write(path, whole)
    other = ModelRun.from_dict(MODEL | {"run_id": "a" * 32})
    assert predict(here.settings, here.storage, manifest, other).model["run_id"] == MODEL["run_id"]
    here.publish(manifest)
    runs = {
        dict(m.headers() or [])["model_run_id"] for m in kafka_log.read_all(servers(here), here.settings.output_topic)
    }
    assert runs == {MODEL["run_id"].encode()}
    assert ScoredBatch.load(here.storage, manifest).model["run_id"] == MODEL["run_id"]


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("service_environment")
def test_outage_of_s3_loses_and_repeats_no_payment(scoring: Make, services: LiveStack):
    here = scoring(2, staging_url=f"s3://staging/{uuid.uuid4().hex[:12]}")

    @contextmanager
    def away() -> Iterator[None]:
        services.kill("s3")
        try:
            with pytest.raises(StagingError):
                yield
        finally:
            services.start("s3")

    for partition in range(2):
        send(here, *payments(1, 2), partition=partition)
    with away():
        here.drain()
    manifest = here.drain_and_predict()
    with away():
        here.publish(manifest)
    assert scored(here) == []
    passed = []

    def once(point: str) -> None:
        """Stop S3 after the first partition's commit, before it is recorded."""
        passed.append(point)
        if point == "committed" and passed.count(point) == 1:
            services.kill("s3")

    try:
        with pytest.raises(StagingError):
            here.publish(manifest, once)
    finally:
        services.start("s3")
    assert here.publish(manifest).outcomes == {0: Outcome.ALREADY_PUBLISHED, 1: Outcome.PUBLISHED}
    assert scored(here) == ["0/0", "0/1", "1/0", "1/1"]
    assert pending_batches(here) == [manifest.batch_id]
    assert here.drain().partitions == ()


def test_partitions_are_fenced_at_the_same_time(scoring: Make):
    here = scoring(24)
    client = kafka_log.producer(servers(here))
    for partition in range(24):
        client.produce(here.settings.input_topic, payments(partition)[0], b"key", partition)
    assert client.flush(30) == 0
    manifest = here.drain_and_predict()
    passed = []
    published = here.publish(manifest, lambda point: passed.append((point, time.monotonic())))
    assert set(published.outcomes.values()) == {Outcome.PUBLISHED}
    assert len(scored(here)) == 24
    times = [when for point, when in passed if point in ("before fence", "before transaction")]
    # On an idle machine 24 fencings take 9 s one after the other, and 0.6 s at the same time.
    assert times[1] - times[0] < 5


def test_too_large_dead_letter_names_the_topic_setting(scoring: Make, topics: Callable[..., str]):
    here = scoring(dead_letter_topic=topics(1, prefix="dead"))
    # No compressor makes this smaller, and a dead letter's headers make it larger than the topic allows.
    send(here, os.urandom(1_048_588 - 100))
    manifest = here.drain_and_predict()
    with pytest.raises(ClusterError, match=r"MSG_SIZE_TOO_LARGE.*max\.message\.bytes"):
        here.publish(manifest)
    kafka_log.set_topic(servers(here), here.settings.dead_letter_topic, "max.message.bytes", "2000000")
    assert here.publish(manifest).outcomes == {0: Outcome.PUBLISHED}
    assert dead(here) == ["0/0"]


# Publishers and brokers that die or freeze.


@pytest.mark.parametrize("point", [*BEFORE_COMMIT, "committed"])
@pytest.mark.parametrize("goes_on", ["a retry", "the next run"])
def test_killed_publisher_leaves_each_payment_published_once(scoring: Make, point: str, goes_on: str):
    here = scoring()
    send(here, *payments(1, 2), b"no JSON")
    manifest = here.drain_and_predict()
    start_publisher(here, manifest, point).kill()
    died_before = point in BEFORE_COMMIT
    assert (scored(here), dead(here)) == (([], []) if died_before else (["0/0", "0/1"], ["0/2"]))

    if goes_on == "a retry":
        last = manifest
        outcome = here.publish(manifest).outcomes[0]
        assert outcome is (Outcome.PUBLISHED if died_before else Outcome.ALREADY_PUBLISHED)
        assert scored(here) == ["0/0", "0/1"]
    else:
        send(here, *payments(9))
        last = here.drain_and_predict()
        assert [(part.start, part.end) for part in last.partitions] == [(0 if died_before else 3, 4)]
        here.publish(last)
        assert scored(here) == ["0/0", "0/1", "0/3"]
    assert dead(here) == ["0/2"]
    record_committed_batches(here.cluster, here.settings, here.outbox)
    assert pending_batches(here) == sorted({last.batch_id} if died_before else {manifest.batch_id, last.batch_id})


@pytest.mark.parametrize("point", BEFORE_COMMIT)
def test_frozen_publisher_changes_nothing_when_it_resumes(scoring: Make, point: str):
    here = scoring()
    send(here, *payments(1, 2), b"no JSON")
    manifest = here.drain_and_predict()
    zombie = start_publisher(here, manifest, point)
    zombie.freeze()
    assert here.publish(manifest).outcomes == {0: Outcome.PUBLISHED}
    send(here, *payments(4))
    last = here.drain_and_predict()
    here.publish(last)
    code, words = zombie.go_on()
    if point == "before fence":
        # It reads the committed offset first, and finds its batch published.
        assert (code, words) == (0, "['already published']")
    else:
        assert code == 1
        error = (
            "fenced by a newer attempt" if point == "offsets sent" else f"batch {last.batch_id} committed the offset"
        )
        assert error in words
    assert len(scored(here)) == 3
    assert len(set(scored(here))) == 3
    assert dead(here) == ["0/2"]


def test_frozen_publisher_does_not_stop_the_next_run(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    zombie = start_publisher(here, here.drain_and_predict(), "offsets sent")
    zombie.freeze()
    with pytest.raises(HangingTransactionError, match="find-hanging"):
        committed_offsets(here)
    here.run()
    code, words = zombie.go_on()
    assert code == 1
    assert "fenced" in words
    assert scored(here) == ["0/0", "0/1"]


@pytest.mark.parametrize("connected", [False, True])
def test_unresponsive_broker_is_not_reported_as_an_open_transaction(
    scoring: Make, services: LiveStack, monkeypatch: pytest.MonkeyPatch, connected: bool
):
    monkeypatch.setattr("include.kafka.consumer_group._READ_SECONDS", 2.0)
    monkeypatch.setattr("include.kafka.consumer_group._COMMIT_VISIBLE_SECONDS", 1.0)
    here = scoring()
    words = f"committed offsets of {here.settings.input_topic} cannot be read: .*the broker did not answer in time"
    with here.group() as group:
        if connected:
            group.committed_offsets()
        with services.frozen("kafka"):
            with pytest.raises(BrokerUnresponsiveError, match=words):
                group.committed_offsets()
            # The same while it waits for a commit to become visible.
            with pytest.raises(BrokerUnresponsiveError, match=words):
                group.await_commit(0, 1, CommitNote("b", "t", "now"), CommittedOffset(None))
        assert group.committed_offsets() == {0: CommittedOffset(None)}


def is_back(here: Scoring) -> bool:
    """Return whether the broker is in its own metadata again: a frozen broker leaves the cluster for a moment."""
    try:
        here.cluster.describe_topic(here.settings.input_topic)
    except ClusterError:
        return False
    return bool(AdminClient(dict(here.kafka)).list_topics(timeout=10).brokers)


def test_unresponsive_broker_ends_publish_in_time(
    scoring: Make, services: LiveStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka's calls end by their timeout, and the one that ignores its timeout is abandoned."""
    here = scoring()
    send(here, *payments(1, 2))
    drained = here.drain_and_predict()
    broker = psutil.Process(services.pid("kafka"))
    # Other tests need the broker, even if this one fails.
    rescue = threading.Timer(60, broker.resume)
    rescue.start()
    began = time.monotonic()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(transaction, "_COMMIT_SECONDS", 3.0)
            patched.setattr(transaction, "_GRACE_SECONDS", 1.0)
            words = r"could not add the offset within 3 s: a coordinator does not answer at 127\."
            with pytest.raises(ClusterError, match=words):
                here.publish(drained, on_step=lambda point: broker.suspend() if point == "produced" else None)
        assert time.monotonic() - began < 20
    finally:
        rescue.cancel()
        broker.resume()
    # Until the broker is back in its metadata, a client that asks for it would stay without a broker.
    wait_until(lambda: is_back(here), "the broker is not back", 60)
    here.publish(drained)
    assert scored(here) == ["0/0", "0/1"]


def test_client_without_brokers_is_recreated(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    """After metadata without brokers librdkafka never reconnects; here two clients connect to a closed port."""
    here = scoring()
    send(here, *payments(1, 2))
    drained = here.drain_and_predict()
    clients = []

    with socket.socket() as closed_port:
        closed_port.bind(("127.0.0.1", 0))
        unreachable = {"bootstrap.servers": f"127.0.0.1:{closed_port.getsockname()[1]}", "log_level": 0}

        def producer(settings: dict[str, object]) -> Producer:
            clients.append(settings)
            return Producer(settings | (unreachable if len(clients) < 3 else {}))

        monkeypatch.setattr(transactional_producers, "Producer", producer)
        monkeypatch.setattr(transactional_producers, "_CLIENT_SECONDS", 1.0)
        here.publish(drained)
    # There are more than three if a busy broker is slow to answer the third.
    assert len(clients) >= 3
    assert scored(here) == ["0/0", "0/1"]
