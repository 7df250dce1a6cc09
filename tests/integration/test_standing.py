"""Offsets committed without a batch: refreshed as they were, and set by an operator, past batches in flight."""

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
from include.kafka.fenced_producers import fence
from include.kafka.group_admin import OffsetChange, refresh_offsets, set_offsets
from include.kafka.transaction import Transaction
from tests.support import kafka_log
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
DAY = timedelta(days=1)
# Long enough after what the tests commit, however long the tests before them take.
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


def standing(here: Scoring) -> dict[int, CommittedOffset]:
    with here.group() as group:
        return group.committed_offsets()


def keep(here: Scoring, read: dict[int, CommittedOffset], now: datetime) -> list[int]:
    with here.group() as group:
        return sorted(refresh_offsets(group, read, DAY, now))


def commit_as_another_program(here: Scoring, offset: int, partition: int = 0) -> None:
    place = TopicPartition(here.settings.input_topic, partition, offset)
    client = Admin(here.kafka)
    wanted = ConsumerGroupTopicPartitions(here.settings.group, [place])
    (answer,) = client.alter_consumer_group_offsets([wanted]).values()
    assert answer.result(30).topic_partitions[0].error is None


def move_to(here: Scoring, to: dict[int, int]) -> list[OffsetChange]:
    with here.group() as group:
        return set_offsets(group, to, "set by operator x", datetime.now(UTC))


# Refreshed.


def test_an_old_offset_is_committed_again_with_its_batch(scoring: Make):
    here = scoring(3)
    send(here, 2)
    send(here, 1, partition=2)
    batch = here.drain_and_predict()
    here.publish(batch)
    before = standing(here)
    assert keep(here, before, datetime.now(UTC)) == []
    assert standing(here) == before
    # The partition that never had an offset has none now.
    assert keep(here, before, TOMORROW) == [0, 2]
    at = TOMORROW.isoformat(timespec="seconds")
    note = CommitNote(batch.batch_id, topic_of(here).topic_id, at)
    assert standing(here) == {0: CommittedOffset(2, note), 1: CommittedOffset(None), 2: CommittedOffset(1, note)}
    assert keep(here, standing(here), TOMORROW) == []
    send(here, 1)
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/2", "2/0"]


def test_a_batch_is_known_by_its_note_after_it_was_kept_alive(scoring: Make):
    here = scoring()
    send(here, 2)
    batch = here.drain_and_predict()
    here.publish(batch)
    here.storage.delete(f"{batch.folder}/committed-0")
    assert keep(here, standing(here), TOMORROW) == [0]
    assert here.outbox.committed(batch) == set()
    here.drain()
    assert here.outbox.committed(batch) == {0}
    assert scored(here) == ["0/0", "0/1"]


def test_another_programs_commit_is_kept_alive_from_now_on(scoring: Make):
    here = scoring()
    send(here, 3)
    commit_as_another_program(here, 2)
    assert standing(here) == {0: CommittedOffset(2)}
    now = datetime.now(UTC)
    assert keep(here, standing(here), now) == [0]
    assert standing(here)[0] == CommittedOffset(
        2, CommitNote("", topic_of(here).topic_id, now.isoformat(timespec="seconds"))
    )
    assert keep(here, standing(here), now) == []
    here.run()
    assert scored(here) == ["0/2"]


def test_a_run_keeps_alive_what_it_has_nothing_to_read_of(scoring: Make):
    here = scoring(3)
    send(here, 2, partition=1)
    for partition in (0, 1):
        commit_as_another_program(here, 1 if partition else 0, partition)
    here.run()
    note = standing(here)[0].note
    assert note is not None
    assert (note.batch, standing(here)[2]) == ("", CommittedOffset(None))
    # And knows that it did.
    here.forget_group()
    with pytest.raises(TopicChangedError, match="/0: the group's committed offset is gone; it had reached 0"):
        here.drain()


def test_an_offset_that_moved_since_it_was_read_is_left_alone(scoring: Make):
    here = scoring(2)
    for partition in range(2):
        send(here, 2, partition)
    here.run()
    read = standing(here)
    send(here, 1)
    here.run()
    commit_as_another_program(here, 2, partition=1)
    now = standing(here)
    assert [at.offset for at in now.values()] == [3, 2]
    assert keep(here, read, TOMORROW) == []
    assert standing(here) == now


def test_the_offset_of_an_earlier_topic_is_left_alone(scoring: Make):
    here = scoring()
    send(here, 1)
    old = CommittedOffset(1, CommitNote("b", "another id", "2020-01-01T00:00:00+00:00"))
    assert keep(here, {0: old}, TOMORROW) == []
    assert standing(here) == {0: CommittedOffset(None)}


def test_a_partition_that_cannot_be_kept_alive_stops_nothing(scoring: Make, caplog: pytest.LogCaptureFixture):
    here = scoring()
    send(here, 1)
    here.run()
    read = standing(here)
    away = Cluster({"bootstrap.servers": servers(here), "security.protocol": "no such"})
    with here.group() as group:
        assert refresh_offsets(replace(group, cluster=away), read, DAY, TOMORROW) == {}
    assert "/0: the committed offset was not refreshed: " in caplog.text
    assert standing(here) == read


# Set.


@pytest.mark.parametrize("to", [0, 1, 2, 3, 5])
def test_a_batch_in_flight_is_told_and_publishes_nothing(scoring: Make, to: int):
    here = scoring()
    send(here, 2)
    here.run()
    send(here, 3)
    batch = here.drain_and_predict()
    assert move_to(here, {0: to}) == [OffsetChange(0, 2, to)]
    # Also where it would have ended itself: nobody has published what lies between.
    message = rf"stands at {to} on .*/0, but batch {batch.batch_id} .*, and 'set by operator x' committed the offset"
    with pytest.raises(OffsetsChangedError, match=message):
        here.publish(batch)
    assert scored(here) == ["0/0", "0/1"]
    following = here.drain_and_predict()
    assert [(part.start, part.end) for part in following.partitions] == ([(to, 5)] if to < 5 else [])
    if following.partitions:
        here.publish(following)
    assert scored(here) == sorted(["0/0", "0/1", *(f"0/{place}" for place in range(to, 5))])


@pytest.mark.parametrize(
    ("at", "message"), [("published", "'set by operator x' committed the offset"), ("offsets sent", "fenced")]
)
def test_a_batch_in_its_kafka_transaction_is_shut_out(scoring: Make, at: str, message: str):
    here = scoring()
    send(here, 2)
    batch = here.drain_and_predict()
    during = []

    def reached(point: str) -> None:
        if point == at:
            during.extend(move_to(here, {0: 1}))

    with pytest.raises(ClusterError, match=message):
        here.publish(batch, reached)
    assert during == [OffsetChange(0, None, 1)]
    assert scored(here) == []
    here.run()
    assert scored(here) == ["0/1"]


def test_an_open_kafka_transaction_on_the_offsets_is_ended(scoring: Make):
    here = scoring()
    send(here, 2)
    with here.group() as group:
        step = Transaction(fence(group.cluster, group.name, group.topic.name, [0])[0], group, 0)

        def reached(point: str) -> None:
            if point == "offsets sent":
                with pytest.raises(HangingTransactionError):
                    standing(here)
                assert move_to(here, {0: 1}) == [OffsetChange(0, None, 1)]

        with pytest.raises(ClusterError, match="fenced"):
            step.run((), 2, CommitNote("b", group.topic.topic_id, "now"), reached)
    assert standing(here)[0].offset == 1


def test_each_partition_has_an_outcome_of_its_own(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.kafka.consumer_group._COMMIT_VISIBLE_SECONDS", 1.0)
    here = scoring(2)
    for partition in range(2):
        send(here, 2, partition)
    here.run()
    # No such offset can be committed, and the client passes over it in silence.
    first, second = move_to(here, {0: -7, 1: 1})
    assert (first.partition, first.before, first.target) == (0, 2, -7)
    assert "acknowledged the commit of offset -7, but after 1 s the committed offset is 2: " in str(first.error)
    assert second == OffsetChange(1, 2, 1)
    assert [at.offset for at in standing(here).values()] == [2, 1]


def test_a_group_with_members_is_left_alone(scoring: Make):
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
            move_to(here, {0: 0})
    finally:
        stranger.close()
    assert standing(here)[0].offset == 2
