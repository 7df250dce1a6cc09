"""Alarms of a real topic: the age of its payments, its retention, and open transactions."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from include.batch.alarm_texts import BEHIND_AGE, BLOCKED, CLOSE_TO_RETENTION, IMPLAUSIBLE_TIMESTAMP
from include.batch.manifest import Manifest
from tests.integration.test_protocol import payments, scored, send, servers
from tests.support import kafka_log
from tests.support.scoring import Scoring

MINUTE = 60_000
TOO_OLD = [CLOSE_TO_RETENTION, BEHIND_AGE]


@pytest.fixture
def here(scoring: Callable[..., Scoring]) -> Scoring:
    """Return a topic with two partitions and a retention of half an hour."""
    here = scoring(2)
    kafka_log.set_topic(servers(here), here.settings.input_topic, "retention.ms", str(30 * MINUTE))
    return here


def found(here: Scoring, manifest: Manifest) -> dict[str, str]:
    return {alarm.kind: alarm.sentence for alarm in here.alarms(manifest)}


def produce_old(client: Producer, here: Scoring, minutes: int) -> None:
    at = int(time.time() * 1000) - minutes * MINUTE
    client.produce(here.settings.input_topic, payments(1)[0], partition=0, timestamp=at)
    assert client.flush(30) == 0


@pytest.fixture
def open_transaction(here: Scoring) -> Producer:
    client = kafka_log.producer(servers(here), f"open {here.settings.input_topic}")
    client.begin_transaction()
    return client


@pytest.mark.parametrize(("minutes", "kinds"), [(14, []), (15, TOO_OLD), (29, TOO_OLD)])
def test_age_of_the_oldest_payment_is_compared_with_setting_and_retention(
    here: Scoring, minutes: int, kinds: list[str]
):
    produce_old(kafka_log.producer(servers(here)), here, minutes)
    send(here, *payments(2, 3))
    send(here, *payments(4), partition=1)
    alarms = found(here, here.drain())
    assert list(alarms) == kinds
    if kinds:
        assert "keeps payments for 30 min (retention.ms)" in alarms[CLOSE_TO_RETENTION]
        assert "Partitions: 0 (" in alarms[BEHIND_AGE]


def test_timestamps_in_seconds_raise_no_age_alarm(here: Scoring):
    """Kafka counts milliseconds: seconds mean January 1970."""
    client = kafka_log.producer(servers(here))
    client.produce(here.settings.input_topic, payments(1)[0], partition=0, timestamp=int(time.time()))
    assert client.flush(30) == 0
    send(here, *payments(2), partition=1)
    alarms = found(here, here.drain())
    assert list(alarms) == [IMPLAUSIBLE_TIMESTAMP]
    assert "/0 from offset 0 (1970-01-" in alarms[IMPLAUSIBLE_TIMESTAMP]


def test_blocked_partition_raises_alarms_although_nothing_can_be_read(here: Scoring, open_transaction: Producer):
    send(here, *payments(1))
    here.run()
    produce_old(open_transaction, here, 20)
    send(here, *payments(2, 3))
    manifest = here.drain()
    assert (manifest.partitions, manifest.left_for_later_runs) == ((), 0)
    # As it comes from the XCom.
    alarms = found(here, Manifest.from_dict(manifest.to_dict()))
    topic = here.settings.input_topic
    assert list(alarms) == [BLOCKED, CLOSE_TO_RETENTION]
    assert f": {topic}/0 at offset 1 (3 offsets, for 20 min" in alarms[BLOCKED]
    assert "0 (20 min" in alarms[CLOSE_TO_RETENTION]

    # The other partition is scored.
    send(here, *payments(4), partition=1)
    manifest = here.drain_and_predict()
    here.publish(manifest)
    assert list(found(here, manifest)) == [BLOCKED, CLOSE_TO_RETENTION]
    open_transaction.abort_transaction()
    manifest = here.drain_and_predict()
    here.publish(manifest)
    assert found(here, manifest) == {}
    assert scored(here) == ["0/0", "0/2", "0/3", "1/0"]


def test_new_open_transaction_raises_no_alarm(here: Scoring, open_transaction: Producer):
    produce_old(open_transaction, here, 0)
    manifest = here.drain()
    assert [one.partition for one in manifest.blocked] == [0]
    assert found(here, manifest) == {}
    open_transaction.commit_transaction()
    here.run()
    assert scored(here) == ["0/0"]
