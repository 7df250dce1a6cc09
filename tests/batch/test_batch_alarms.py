from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME

from include.batch.alarm_texts import (
    BEHIND_AGE,
    BEHIND_PAYMENTS,
    BLOCKED,
    CLOSE_TO_RETENTION,
    EXPIRED,
    IMPLAUSIBLE_TIMESTAMP,
    OFFSETS_MOVED,
)
from include.batch.batch_alarms import AlarmState, find_alarms, find_backlog_alarm
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.partition_lag import PartitionLag
from include.kafka.retention import Retention, to_datetime
from include.settings import Settings

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SETTINGS = Settings(alarm_lag=1000, alarm_age_minutes=15)
DAY = Retention(timedelta(days=1))


def waiting(partition: int = 0, *, committed: int | None = 100, low: int = 0, stable: int = 600, **age: float):
    oldest = NOW - timedelta(**age) if age else None
    return PartitionLag(partition, committed, low, stable, oldest)


def alarms(*items: PartitionLag, retention: Retention | None = DAY) -> dict[str, str]:
    found = find_alarms("topic_1", items, retention, SETTINGS, NOW)
    # Kinds without a cause end.
    assert [alarm.kind for alarm in found] == [
        EXPIRED,
        OFFSETS_MOVED,
        BLOCKED,
        CLOSE_TO_RETENTION,
        BEHIND_AGE,
        IMPLAUSIBLE_TIMESTAMP,
    ]
    assert all(alarm.cause == (alarm.sentence and alarm.kind) for alarm in found)
    return {alarm.kind: alarm.sentence for alarm in found if alarm.is_raised}


def backlog_alarm(*left: int) -> AlarmState:
    """Return the lag alarm of partitions with so many offsets left, after a run has read 50 of each."""
    parts = [PartitionBatch(number, 100, 600, 100, stable=150 + one) for number, one in enumerate(left)]
    planned = Manifest("a batch", "", "", "", "topic_1", "", "", tuple(parts))
    return find_backlog_alarm(planned, {part.partition: 150 for part in parts}, SETTINGS)


def test_usual_minute_raises_no_alarm():
    assert alarms(waiting(seconds=61), waiting(1, stable=100), waiting(2, committed=None, stable=0)) == {}


def test_expired_offsets_are_counted_and_listed_by_partition():
    found = alarms(waiting(low=1304, stable=1304), waiting(1, low=100), waiting(2, low=109, committed=100))
    assert found == {
        EXPIRED: "1,213 offsets expired before they were read: topic_1/0 [100, 1304), topic_1/2 [100, 109)."
    }


def test_moved_offsets_are_listed_by_partition():
    items = [
        replace(waiting(number, committed=100), moved_from=before) for number, before in enumerate((None, 70, 112))
    ]
    assert alarms(*items) == {
        OFFSETS_MOVED: "Another program has moved the group's offsets: topic_1/1 from 70 to 100 (30 skipped), "
        "topic_1/2 from 112 to 100 (12 to be scored again)."
    }


def test_group_without_commits_has_lost_nothing():
    assert alarms(waiting(committed=None, low=50)) == {}


@pytest.mark.parametrize(("hours", "close"), [(11.9, False), (12.1, True), (30, True)])
def test_half_of_the_retention_raises_the_retention_alarm(hours: float, close: bool):
    assert (CLOSE_TO_RETENTION in alarms(waiting(hours=hours))) is close


def test_retention_alarm_names_time_left_and_oldest_partition_first():
    found = alarms(waiting(hours=13), waiting(1, hours=1), waiting(2, hours=20, minutes=30, seconds=9))
    assert found[CLOSE_TO_RETENTION] == (
        "The oldest unread payment is 20 h 30 min old, and topic_1 keeps payments for 1 d (retention.ms): "
        "3 h 29 min are left. Partitions: 2 (20 h 30 min, from offset 100), 0 (13 h, from offset 100)."
    )
    assert "it can expire at any moment" in alarms(waiting(days=2))[CLOSE_TO_RETENTION]


@pytest.mark.parametrize("retention", [None, Retention()])
def test_unknown_or_unlimited_retention_raises_no_alarm(retention: Retention | None):
    assert CLOSE_TO_RETENTION not in alarms(waiting(days=300), retention=retention)


def test_partition_without_unread_offsets_raises_no_age_alarm():
    assert alarms(waiting(stable=100, days=3)) == {}


@pytest.mark.parametrize(
    ("low", "committed", "close"),
    [
        (0, 0, False),  # Kafka has deleted nothing yet: the size is not reached
        (1000, 1000, True),
        (1000, 1500, True),
        (1000, 1501, False),
        (1000, 2000, False),
    ],
)
def test_half_of_the_retained_size_unread_raises_the_retention_alarm(low: int, committed: int, close: bool):
    item = waiting(committed=committed, low=low, stable=2000, minutes=1)
    found = alarms(item, retention=Retention(None, 10_000_000))
    assert (CLOSE_TO_RETENTION in found) is close
    if close:
        assert f"unread from offset {committed}, kept from 1000" in found[CLOSE_TO_RETENTION]
        assert "retention.bytes=10000000" in found[CLOSE_TO_RETENTION]
    assert CLOSE_TO_RETENTION not in alarms(item)


def test_limits_of_time_and_size_share_one_alarm():
    found = alarms(waiting(low=100, hours=20), retention=replace(DAY, bytes=1000))
    assert "4 h are left" in found[CLOSE_TO_RETENTION]
    assert "retention.bytes=1000" in found[CLOSE_TO_RETENTION]


def test_backlog_alarm_counts_all_partitions():
    assert backlog_alarm(600, 400) == AlarmState(BEHIND_PAYMENTS)
    assert backlog_alarm(600, 0, 900) == AlarmState(
        BEHIND_PAYMENTS,
        "1,500 offsets of topic_1 are left for later runs, more than FRAUD_ALARM_LAG=1000. "
        "Partitions: 2 (900), 0 (600).",
        BEHIND_PAYMENTS,
    )


def test_age_alarm_names_the_oldest_payment():
    assert BEHIND_AGE not in alarms(waiting(minutes=15))
    found = alarms(waiting(minutes=16), waiting(1, minutes=2))
    assert found == {
        BEHIND_AGE: "The oldest unread payment of topic_1 had waited 16 min, longer than FRAUD_ALARM_AGE_MINUTES=15. "
        "Partitions: 0 (16 min, 500 offsets unread)."
    }


def stamped(at: datetime, partition: int = 0) -> PartitionLag:
    return replace(waiting(partition), oldest_at=at)


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (datetime.fromtimestamp(NOW.timestamp() / 1000, UTC), "1970-01-21"),  # in seconds instead of milliseconds
        (datetime(1999, 12, 31, tzinfo=UTC), "1999-12-31"),
        (datetime(2026, 11, 26, tzinfo=UTC), "2026-11-26"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31"),
    ],
)
def test_implausible_timestamp_raises_its_own_alarm_and_no_age_alarm(at: datetime, shown: str):
    assert alarms(stamped(at), waiting(1, minutes=2)) == {
        IMPLAUSIBLE_TIMESTAMP: f"The Kafka timestamp is implausible: topic_1/0 from offset 100 ({shown})."
    }


def test_timestamp_in_microseconds_becomes_the_latest_date():
    """Kafka 3 accepts them; Kafka 4 rejects timestamps of more than an hour ahead."""
    at = to_datetime((TIMESTAMP_CREATE_TIME, int(NOW.timestamp()) * 1_000_000))
    assert at is not None
    assert "topic_1/0 from offset 100 (9999-12-31)" in alarms(stamped(at))[IMPLAUSIBLE_TIMESTAMP]


def test_implausible_timestamp_hides_no_age_alarm_of_another_partition():
    found = alarms(stamped(datetime(1970, 1, 21, tzinfo=UTC)), waiting(1, minutes=16))
    assert set(found) == {BEHIND_AGE, IMPLAUSIBLE_TIMESTAMP}
    assert "had waited 16 min" in found[BEHIND_AGE]
    assert "Partitions: 1 (16 min, 500 offsets unread)." in found[BEHIND_AGE]


@pytest.mark.parametrize("at", [datetime(2000, 1, 1, tzinfo=UTC), NOW + timedelta(hours=23)])
def test_old_payment_and_fast_clock_are_plausible(at: datetime):
    assert IMPLAUSIBLE_TIMESTAMP not in alarms(stamped(at))


def test_blocked_partition_raises_its_own_alarm_and_no_age_alarm():
    """Its payments cannot be read, so they raise no age alarm; but they can expire."""
    held = replace(waiting(stable=100, minutes=16), blocked=40)
    assert alarms(replace(held, oldest_at=NOW - timedelta(minutes=15))) == {}
    assert alarms(held, waiting(1, minutes=2)) == {
        BLOCKED: "A kafka transaction has held up payments for longer than FRAUD_ALARM_AGE_MINUTES=15: "
        "topic_1/0 at offset 100 (40 offsets, for 16 min)."
    }
    found = alarms(held, retention=Retention(timedelta(minutes=30), None))
    assert "The oldest unread payment is 16 min old" in found[CLOSE_TO_RETENTION]
    found = alarms(replace(held, low=70), retention=Retention(None, 1000))
    assert "0 (57%: unread from offset 100, kept from 70)" in found[CLOSE_TO_RETENTION]


@pytest.mark.parametrize("at", [datetime(1970, 1, 21, tzinfo=UTC), datetime.max.replace(tzinfo=UTC), None])
def test_blocked_partition_of_unknown_age_raises_the_alarm(at: datetime | None):
    ageless = replace(waiting(stable=100), blocked=40, oldest_at=at)
    sentence = (
        "A kafka transaction holds up payments; their timestamps do not say how long: topic_1/0 at offset 100 "
        "(40 offsets)."
    )
    assert alarms(ageless)[BLOCKED] == sentence
    old = replace(waiting(1, stable=100, minutes=16), blocked=2)
    assert alarms(old, ageless)[BLOCKED] == (
        "A kafka transaction has held up payments for longer than FRAUD_ALARM_AGE_MINUTES=15: "
        f"topic_1/1 at offset 100 (2 offsets, for 16 min). {sentence}"
    )
    assert CLOSE_TO_RETENTION not in alarms(ageless)


def test_alarm_lists_only_some_of_many_partitions():
    assert backlog_alarm(*[100] * 300).sentence.endswith("7 (100) and 292 more.")


def test_alarm_becomes_plain_values_for_an_xcom():
    alarm = find_alarms("topic_1", [waiting(low=300)], None, SETTINGS, NOW)[0]
    assert alarm.to_dict() == {"kind": EXPIRED, "sentence": alarm.sentence, "cause": EXPIRED}
