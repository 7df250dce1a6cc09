"""Find the alarms of a batch: states that operators must know of though no task fails, such as expired payments.

The sentences hold counts, offsets and times, never payment data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from include.batch.alarm_texts import (
    BEHIND_AGE,
    BEHIND_PAYMENTS,
    BLOCKED,
    CLOSE_TO_RETENTION,
    EXPIRED,
    IMPLAUSIBLE_TIMESTAMP,
    OFFSETS_MOVED,
)
from include.batch.manifest import Manifest
from include.batch.partition_lag import PartitionLag
from include.kafka.retention import Retention
from include.settings import Settings

# Unread payments are close to the retention if this share of its time has passed, or if they are this share of the
# offsets that the partition retains.
_CLOSE_SHARE = 0.5
_MAX_LISTED = 8
# A timestamp in seconds, read as milliseconds, is in January 1970.
_EARLIEST_PLAUSIBLE = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_CLOCK_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class AlarmState:
    """Whether a batch raises a kind of alarm, or ends it. Field names are keys of the XCom `alarms`.

    `sentence` says what was found. `cause` is empty if the batch ends the alarm, otherwise the kind; for dead letters
    it is the code of their most frequent reason. While an alarm lasts, operators get a mail for each new cause.
    """

    kind: str
    sentence: str = ""
    cause: str = ""

    @property
    def is_raised(self) -> bool:
        """Return whether the batch raises the alarm."""
        return bool(self.cause)

    def to_dict(self) -> dict[str, str]:
        """Return the alarm for the XCom `alarms`."""
        return asdict(self)


def find_alarms(
    topic: str, lags: Sequence[PartitionLag], retention: Retention | None, settings: Settings, now: datetime
) -> list[AlarmState]:
    """Return the state of each kind of alarm that the lags of a planned batch can raise, all partitions together.

    If `retention` is None, it is unknown, and nothing is close to it.
    """
    close = _close_by_age(topic, lags, retention, now), _close_by_size(lags, retention)
    sentences = {
        EXPIRED: _expired(topic, lags),
        OFFSETS_MOVED: _moved(topic, lags),
        BLOCKED: _blocked(topic, lags, settings, now),
        CLOSE_TO_RETENTION: " ".join(filter(None, close)),
        BEHIND_AGE: _waited_too_long(topic, lags, settings, now),
        IMPLAUSIBLE_TIMESTAMP: _implausible(topic, lags, now),
    }
    return [AlarmState(kind, sentence, kind if sentence else "") for kind, sentence in sentences.items()]


def find_backlog_alarm(planned: Manifest, ends: Mapping[int, int], settings: Settings) -> AlarmState:
    """Return the state of the alarm on the offsets that a run leaves for later runs.

    `ends` has the offset that each partition was read to; a partition that is missing was not read.
    """
    left = {part.partition: part.stable - ends.get(part.partition, part.start) for part in planned.partitions}
    if sum(left.values()) <= settings.alarm_lag:
        return AlarmState(BEHIND_PAYMENTS)
    most = sorted(left.items(), key=lambda item: -item[1])
    partitions = _list(f"{partition} ({offsets:,})" for partition, offsets in most if offsets)
    sentence = (
        f"{sum(left.values()):,} offsets of {planned.topic} are left for later runs, more than "
        f"FRAUD_ALARM_LAG={settings.alarm_lag}. Partitions: {partitions}."
    )
    return AlarmState(BEHIND_PAYMENTS, sentence, BEHIND_PAYMENTS)


def _expired(topic: str, lags: Sequence[PartitionLag]) -> str:
    expired = [lag for lag in lags if lag.lost]
    if not expired:
        return ""
    ranges = _list(f"{topic}/{lag.partition} [{lag.committed}, {lag.start})" for lag in expired)
    return f"{sum(lag.lost for lag in expired):,} offsets expired before they were read: {ranges}."


def _moved(topic: str, lags: Sequence[PartitionLag]) -> str:
    moves = []
    for lag in lags:
        before, after = lag.moved_from, lag.committed
        if before is None or after is None:
            continue
        effect = f"{after - before:,} skipped" if after > before else f"{before - after:,} to be scored again"
        moves.append(f"{topic}/{lag.partition} from {before} to {after} ({effect})")
    return f"Another program has moved the group's offsets: {_list(moves)}." if moves else ""


def _close_by_age(topic: str, lags: Sequence[PartitionLag], retention: Retention | None, now: datetime) -> str:
    if retention is None or retention.age is None:
        return ""
    old = {lag: age for lag, age in _ages(lags, now).items() if age >= retention.age * _CLOSE_SHARE}
    if not old:
        return ""
    oldest = max(old.values())
    left = retention.age - oldest
    partitions = _list(f"{lag.partition} ({_span(age)}, from offset {lag.start})" for lag, age in old.items())
    return (
        f"The oldest unread payment is {_span(oldest)} old, and {topic} keeps payments for {_span(retention.age)} "
        f"(retention.ms): {f'{_span(left)} are left' if left > timedelta() else 'it can expire at any moment'}. "
        f"Partitions: {partitions}."
    )


def _close_by_size(lags: Sequence[PartitionLag], retention: Retention | None) -> str:
    if retention is None or retention.bytes is None:
        return ""
    # If the first offset is not 0, Kafka has deleted messages. This assumes that it did so because of retention.bytes:
    # then it keeps about as many messages as fit.
    close = [lag for lag in lags if lag.low and lag.unread and lag.unread >= (lag.end - lag.low) * _CLOSE_SHARE]
    if not close:
        return ""
    partitions = _list(
        f"{lag.partition} ({lag.unread / (lag.end - lag.low):.0%}: unread from offset {lag.start}, kept from {lag.low})"
        for lag in close
    )
    kept = f"the messages kept under retention.bytes={retention.bytes}"
    return f"Half or more of {kept} are unread in partitions {partitions}."


def _waited_too_long(topic: str, lags: Sequence[PartitionLag], settings: Settings, now: datetime) -> str:
    old = _too_old([lag for lag in lags if not lag.blocked], settings, now)
    if not old:
        return ""
    partitions = _list(f"{lag.partition} ({_span(age)}, {lag.unread:,} offsets unread)" for lag, age in old.items())
    return (
        f"The oldest unread payment of {topic} had waited {_span(max(old.values()))}, longer than "
        f"FRAUD_ALARM_AGE_MINUTES={settings.alarm_age_minutes:g}. Partitions: {partitions}."
    )


def _blocked(topic: str, lags: Sequence[PartitionLag], settings: Settings, now: datetime) -> str:
    blocked = [lag for lag in lags if lag.blocked]
    sentences = []
    if old := _too_old(blocked, settings, now):
        partitions = _list(
            f"{topic}/{lag.partition} at offset {lag.stable} ({lag.blocked:,} offsets, for {_span(age)})"
            for lag, age in old.items()
        )
        sentences.append(
            "A kafka transaction has held up payments for longer than "
            f"FRAUD_ALARM_AGE_MINUTES={settings.alarm_age_minutes:g}: {partitions}."
        )
    # Without an age it may have opened just now or hang for ever. A superfluous mail is better than none.
    ages = _ages(blocked, now)
    if ageless := [lag for lag in blocked if lag.unread and lag not in ages]:
        partitions = _list(
            f"{topic}/{lag.partition} at offset {lag.stable} ({lag.blocked:,} offsets)" for lag in ageless
        )
        sentences.append(f"A kafka transaction holds up payments; their timestamps do not say how long: {partitions}.")
    return " ".join(sentences)


def _too_old(lags: Iterable[PartitionLag], settings: Settings, now: datetime) -> dict[PartitionLag, timedelta]:
    return {lag: age for lag, age in _ages(lags, now).items() if age > timedelta(minutes=settings.alarm_age_minutes)}


def _ages(lags: Iterable[PartitionLag], now: datetime) -> dict[PartitionLag, timedelta]:
    """Return the age of each partition's oldest unread message with a plausible timestamp, the highest age first."""
    ages = {
        lag: now - lag.oldest_at
        for lag in lags
        if lag.unread and lag.oldest_at is not None and _is_plausible(lag.oldest_at, now)
    }
    return dict(sorted(ages.items(), key=lambda item: item[1], reverse=True))


def _is_plausible(at: datetime, now: datetime) -> bool:
    return _EARLIEST_PLAUSIBLE <= at <= now + _MAX_CLOCK_AHEAD


def _implausible(topic: str, lags: Sequence[PartitionLag], now: datetime) -> str:
    offsets = _list(
        f"{topic}/{lag.partition} from offset {lag.start} ({lag.oldest_at:%Y-%m-%d})"
        for lag in lags
        if lag.unread and lag.oldest_at is not None and not _is_plausible(lag.oldest_at, now)
    )
    return f"The Kafka timestamp is implausible: {offsets}." if offsets else ""


def _list(texts: Iterable[str]) -> str:
    """Join the texts, the first few of them only: a topic may have hundreds of partitions."""
    every = list(texts)
    more = len(every) - _MAX_LISTED
    return ", ".join(every[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _span(length: timedelta) -> str:
    """Return the two largest units of a time, such as "20 h 30 min"."""
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts[:2]) or "0 s"
