"""Commits without a batch: refreshed offsets, and offsets that an operator sets while batches are in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition

from include.errors import (
    ClusterError,
    GroupInUseError,
    HangingTransactionError,
    OffsetsChangedError,
    TopicChangedError,
)
from include.kafka.admin import Admin
from include.kafka.cluster import Cluster, Topic
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.group_admin import OffsetChange, refresh_offsets, set_offsets
from include.kafka.transaction import Transaction
from include.kafka.transactional_producers import fence
from tests.support import kafka_log
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
DAY = timedelta(days=1)
# Later than one day after every commit of these tests.
TOMORROW = datetime.now(UTC) + 2 * DAY
PAYMENT = b'{"columns":["n"],"index":[0],"data":[[1]]}'


def servers(here: Scoring) -> str:
    return str(here.kafka["bootstrap.servers"])


def send(here: Scoring, count: int, partition: int = 0) -> None:
    kafka_log.send(servers(here), here.settings.input_topic, [PAYMENT] * count, partition)


def scored(here: Scoring) -> list[str]:
    messages = kafka_log.read_all(servers(here), here.settings.output_topic)
    sources = [(dict(message.headers() or [])["source"] or b"").decode() for message in messages]
    return sorted(source.partition("/")[2] for source in sources)


def topic_of(here: Scoring) -> Topic:
    return here.cluster.describe_topic(here.settings.input_topic)


def committed_offsets_of(here: Scoring) -> dict[int, CommittedOffset]:
    with here.group() as group:
        return group.committed_offsets()


def refresh(here: Scoring, read: dict[int, CommittedOffset], now: datetime) -> list[int]:
    with here.group() as group:
        return sorted(refresh_offsets(group, read, DAY, now))


def commit_as_another_program(here: Scoring, offset: int, partition: int = 0) -> None:
    place = TopicPartition(here.settings.input_topic, partition, offset)
    client = Admin(here.kafka)
    wanted = ConsumerGroupTopicPartitions(here.settings.group, [place])
    (answer,) = client.alter_consumer_group_offsets([wanted]).values()
    assert answer.result(30).topic_partitions[0].error is None


def set_to(here: Scoring, to: dict[int, int]) -> list[OffsetChange]:
    with here.group() as group:
        return set_offsets(group, to, "set by operator x", datetime.now(UTC))


# Refreshing.


def test_old_offset_is_refreshed_with_its_batch(scoring: Make):
    here = scoring(3)
    send(here, 2)
    send(here, 1, partition=2)
    batch = here.drain_and_predict()
    here.publish(batch)
    before = committed_offsets_of(here)
    assert refresh(here, before, datetime.now(UTC)) == []
    assert committed_offsets_of(here) == before
    # The partition without an offset still has none.
    assert refresh(here, before, TOMORROW) == [0, 2]
    at = TOMORROW.isoformat(timespec="seconds")
    note = CommitNote(batch.batch_id, topic_of(here).topic_id, at)
    assert committed_offsets_of(here) == {
        0: CommittedOffset(2, note),
        1: CommittedOffset(None),
        2: CommittedOffset(1, note),
    }
    assert refresh(here, committed_offsets_of(here), TOMORROW) == []
    send(here, 1)
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/2", "2/0"]


def test_refreshed_note_still_names_the_batch(scoring: Make):
    here = scoring()
    send(here, 2)
    batch = here.drain_and_predict()
    here.publish(batch)
    here.storage.delete(f"{batch.folder}/committed-0")
    assert refresh(here, committed_offsets_of(here), TOMORROW) == [0]
    assert here.outbox.committed_partitions(batch) == set()
    here.drain()
    assert here.outbox.committed_partitions(batch) == {0}
    assert scored(here) == ["0/0", "0/1"]


def test_other_programs_commit_is_refreshed_without_a_batch(scoring: Make):
    here = scoring()
    send(here, 3)
    commit_as_another_program(here, 2)
    assert committed_offsets_of(here) == {0: CommittedOffset(2)}
    now = datetime.now(UTC)
    assert refresh(here, committed_offsets_of(here), now) == [0]
    assert committed_offsets_of(here)[0] == CommittedOffset(
        2, CommitNote("", topic_of(here).topic_id, now.isoformat(timespec="seconds"))
    )
    assert refresh(here, committed_offsets_of(here), now) == []
    here.run()
    assert scored(here) == ["0/2"]


def test_run_refreshes_partitions_without_payments(scoring: Make):
    here = scoring(3)
    send(here, 2, partition=1)
    for partition in (0, 1):
        commit_as_another_program(here, 1 if partition else 0, partition)
    here.run()
    note = committed_offsets_of(here)[0].note
    assert note is not None
    assert (note.batch, committed_offsets_of(here)[2]) == ("", CommittedOffset(None))
    # It has written the checkpoint, too.
    here.forget_group()
    with pytest.raises(TopicChangedError, match="/0: the group's committed offset is gone; it had reached 0"):
        here.drain()


def test_offset_that_changed_since_it_was_read_is_not_refreshed(scoring: Make):
    here = scoring(2)
    for partition in range(2):
        send(here, 2, partition)
    here.run()
    read = committed_offsets_of(here)
    send(here, 1)
    here.run()
    commit_as_another_program(here, 2, partition=1)
    now = committed_offsets_of(here)
    assert [at.offset for at in now.values()] == [3, 2]
    assert refresh(here, read, TOMORROW) == []
    assert committed_offsets_of(here) == now


def test_offset_of_a_deleted_topic_is_not_refreshed(scoring: Make):
    here = scoring()
    send(here, 1)
    old = CommittedOffset(1, CommitNote("b", "another id", "2020-01-01T00:00:00+00:00"))
    assert refresh(here, {0: old}, TOMORROW) == []
    assert committed_offsets_of(here) == {0: CommittedOffset(None)}


def test_failed_refresh_is_only_logged(scoring: Make, caplog: pytest.LogCaptureFixture):
    here = scoring()
    send(here, 1)
    here.run()
    read = committed_offsets_of(here)
    away = Cluster({"bootstrap.servers": servers(here), "security.protocol": "no such"})
    with here.group() as group:
        assert refresh_offsets(replace(group, cluster=away), read, DAY, TOMORROW) == {}
    assert "/0: refreshing the committed offset failed: " in caplog.text
    assert committed_offsets_of(here) == read


# Setting.


@pytest.mark.parametrize("to", [0, 1, 2, 3, 5])
def test_batch_in_flight_publishes_nothing_after_offsets_are_set(scoring: Make, to: int):
    here = scoring()
    send(here, 2)
    here.run()
    send(here, 3)
    batch = here.drain_and_predict()
    assert set_to(here, {0: to}) == [OffsetChange(0, 2, to)]
    # Also at the batch's own end offset: nothing between is published.
    message = rf"/0 is {to}, but batch {batch.batch_id} .*, and operator 'x' committed the offset"
    if to == 2:
        message = rf"/0 is 2, as when batch {batch.batch_id} .*, but operator 'x' has committed it again since"
    with pytest.raises(OffsetsChangedError, match=message):
        here.publish(batch)
    assert scored(here) == ["0/0", "0/1"]
    following = here.drain_and_predict()
    assert [(part.start, part.end) for part in following.partitions] == ([(to, 5)] if to < 5 else [])
    if following.partitions:
        here.publish(following)
    assert scored(here) == sorted(["0/0", "0/1", *(f"0/{place}" for place in range(to, 5))])


@pytest.mark.parametrize(
    ("at", "message"), [("produced", "operator 'x' committed the offset"), ("offsets sent", "fenced")]
)
def test_offsets_set_during_a_transaction_stop_its_batch(scoring: Make, at: str, message: str):
    here = scoring()
    send(here, 2)
    batch = here.drain_and_predict()
    during = []

    def on_step(step: str) -> None:
        if step == at:
            during.extend(set_to(here, {0: 1}))

    with pytest.raises(ClusterError, match=message):
        here.publish(batch, on_step)
    assert during == [OffsetChange(0, None, 1)]
    assert scored(here) == []
    here.run()
    assert scored(here) == ["0/1"]


def test_setting_offsets_aborts_an_open_transaction(scoring: Make):
    here = scoring()
    send(here, 2)
    with here.group() as group:
        transaction = Transaction(fence(group.cluster, group.name, group.topic.name, [0])[0], group, 0)

        def on_step(step: str) -> None:
            if step == "offsets sent":
                with pytest.raises(HangingTransactionError):
                    committed_offsets_of(here)
                assert set_to(here, {0: 1}) == [OffsetChange(0, None, 1)]

        with pytest.raises(ClusterError, match="fenced"):
            transaction.run((), 2, CommitNote("b", group.topic.topic_id, "now"), on_step)
    assert committed_offsets_of(here)[0].offset == 1


def test_failed_partition_does_not_stop_the_others(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.kafka.consumer_group._COMMIT_VISIBLE_SECONDS", 1.0)
    here = scoring(2)
    for partition in range(2):
        send(here, 2, partition)
    here.run()
    # librdkafka silently ignores the commit of a negative offset.
    first, second = set_to(here, {0: -7, 1: 1})
    assert (first.partition, first.before, first.target) == (0, 2, -7)
    assert "acknowledged the commit of offset -7, but after 1 s the committed offset is still 2: " in str(first.error)
    assert second == OffsetChange(1, 2, 1)
    assert [at.offset for at in committed_offsets_of(here).values()] == [2, 1]


def test_group_with_members_is_refused(scoring: Make):
    here = scoring()
    send(here, 2)
    here.run()
    stranger = Consumer({"bootstrap.servers": servers(here), "group.id": here.settings.group})
    stranger.subscribe([here.settings.input_topic])
    until = datetime.now(UTC) + timedelta(seconds=30)
    while not stranger.assignment():
        assert datetime.now(UTC) < until
        stranger.poll(0.1)
    try:
        with pytest.raises(GroupInUseError):
            set_to(here, {0: 0})
    finally:
        stranger.close()
    assert committed_offsets_of(here)[0].offset == 2
