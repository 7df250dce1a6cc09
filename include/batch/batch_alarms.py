"""What operators must hear of though no task fails: payments that expired unread, are about to, or wait too long.

Sentences hold counts, offsets and times, never payment data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from include.batch.alarm_texts import BEHIND_AGE, BEHIND_PAYMENTS, CLOSE, EXPIRED, HELD_UP, MOVED, TIMESTAMP
from include.batch.manifest import Manifest
from include.kafka.retention import Retention
from include.settings import Settings

# From here on there is still as much time to act as has passed.
_CLOSE = 0.5
_LISTED = 8
# A timestamp in seconds, read as milliseconds, is in January 1970.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_CLOCK_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class PartitionLag:
    """What waits on one partition: offsets `[committed, stable)`; those before `low` are gone.

    `oldest_at`: when the first one that is left to read was written. `moved_from`: how far the group had come by
    itself, where another program has committed `committed`. `held_up`: how many offsets from `stable` on wait for the
    end of a kafka transaction, and none before them waits.
    """

    partition: int
    committed: int | None
    low: int
    stable: int
    oldest_at: datetime | None = None
    moved_from: int | None = None
    held_up: int = 0

    @property
    def start(self) -> int:
        return self.low if self.committed is None else max(self.committed, self.low)

    @property
    def end(self) -> int:
        return self.stable + self.held_up

    @property
    def unread(self) -> int:
        return max(0, self.end - self.start)

    @property
    def lost(self) -> int:
        return self.start - self.committed if self.committed is not None else 0


@dataclass(frozen=True)
class Alarm:
    """`cause`: empty where the batch does not have this kind of alarm, which ends it; else a new cause is mailed anew,
    also while the alarm lasts."""

    kind: str
    sentence: str = ""
    cause: str = ""

    def to_dict(self) -> dict[str, str]:
        """For the XCom `alarms`."""
        return asdict(self)


def find_alarms(
    topic: str, waiting: Sequence[PartitionLag], retention: Retention | None, settings: Settings, now: datetime
) -> list[Alarm]:
    """Return one alarm of each kind that a planned batch shows, over all partitions. Without `retention` none can be
    close to it."""
    sentences = {
        EXPIRED: _expired(topic, waiting),
        MOVED: _moved(topic, waiting),
        HELD_UP: _held_up(topic, waiting, settings, now),
        CLOSE: " ".join(
            filter(None, (_close_by_age(topic, waiting, retention, now), _close_by_size(waiting, retention)))
        ),
        BEHIND_AGE: _old(topic, waiting, settings, now),
        TIMESTAMP: _implausible(topic, waiting, now),
    }
    return [Alarm(kind, sentence, kind if sentence else "") for kind, sentence in sentences.items()]


def find_lag_alarm(planned: Manifest, ends: Mapping[int, int], settings: Settings) -> Alarm:
    """Return the alarm of the offsets that a run leaves for later ones. `ends`: how far it came, by partition; one that
    is missing was not read at all."""
    left = {part.partition: part.stable - ends.get(part.partition, part.start) for part in planned.partitions}
    if sum(left.values()) <= settings.alarm_lag:
        return Alarm(BEHIND_PAYMENTS)
    most = sorted(((partition, offsets) for partition, offsets in left.items() if offsets), key=lambda one: -one[1])
    places = _list(f"{partition} ({offsets:,})" for partition, offsets in most)
    sentence = (
        f"{sum(left.values()):,} offsets of {planned.topic} are left for later runs, more than "
        f"FRAUD_ALARM_LAG={settings.alarm_lag}. Partitions: {places}."
    )
    return Alarm(BEHIND_PAYMENTS, sentence, BEHIND_PAYMENTS)


def _expired(topic: str, waiting: Sequence[PartitionLag]) -> str:
    lost = [item for item in waiting if item.lost]
    if not lost:
        return ""
    places = _list(f"{topic}/{item.partition} [{item.committed}, {item.start})" for item in lost)
    return f"{sum(item.lost for item in lost):,} offsets expired before they were read: {places}."


def _moved(topic: str, waiting: Sequence[PartitionLag]) -> str:
    places = []
    for item in waiting:
        before, now = item.moved_from, item.committed
        if before is None or now is None:
            continue
        way = f"{now - before:,} passed over" if now > before else f"{before - now:,} to be scored again"
        places.append(f"{topic}/{item.partition} from {before} to {now} ({way})")
    return f"Another program has moved the group's offsets: {_list(places)}." if places else ""


def _close_by_age(topic: str, waiting: Sequence[PartitionLag], retention: Retention | None, now: datetime) -> str:
    if retention is None or retention.age is None:
        return ""
    old = {item: age for item, age in _ages(waiting, now).items() if age >= retention.age * _CLOSE}
    if not old:
        return ""
    oldest = max(old.values())
    left = retention.age - oldest
    places = _list(f"{item.partition} ({_span(age)}, from offset {item.start})" for item, age in _by_age(old))
    return (
        f"The oldest unread payment is {_span(oldest)} old, and {topic} keeps payments for {_span(retention.age)} "
        f"(retention.ms): {f'{_span(left)} are left' if left > timedelta() else 'it can expire at any moment'}. "
        f"Partitions: {places}."
    )


def _close_by_size(waiting: Sequence[PartitionLag], retention: Retention | None) -> str:
    """Where Kafka already deletes to keep a size, what it keeps is the time that is left."""
    if retention is None or retention.bytes is None:
        return ""
    close = [item for item in waiting if item.low and item.unread and item.unread >= (item.end - item.low) * _CLOSE]
    if not close:
        return ""
    places = _list(
        f"{item.partition} ({item.unread / (item.end - item.low):.0%}: unread from offset {item.start}, kept from "
        f"{item.low})"
        for item in close
    )
    return f"Unread is half or more of what retention.bytes={retention.bytes} keeps of these partitions: {places}."


def _old(topic: str, waiting: Sequence[PartitionLag], settings: Settings, now: datetime) -> str:
    old = _waited_long([item for item in waiting if not item.held_up], settings, now)
    if not old:
        return ""
    places = _list(f"{item.partition} ({_span(age)}, {item.unread:,} offsets unread)" for item, age in _by_age(old))
    return (
        f"The oldest unread payment of {topic} had waited {_span(max(old.values()))}, longer than "
        f"FRAUD_ALARM_AGE_MINUTES={settings.alarm_age_minutes:g}. Partitions: {places}."
    )


def _held_up(topic: str, waiting: Sequence[PartitionLag], settings: Settings, now: datetime) -> str:
    held = [item for item in waiting if item.held_up]
    sentences = []
    if old := _waited_long(held, settings, now):
        places = _list(
            f"{topic}/{item.partition} at offset {item.stable} ({item.held_up:,} offsets, since {_span(age)})"
            for item, age in _by_age(old)
        )
        sentences.append(
            f"A kafka transaction that is open for longer than FRAUD_ALARM_AGE_MINUTES={settings.alarm_age_minutes:g} "
            f"holds up payments: {places}."
        )
    # It may have opened just now, or hang for ever: better one mail too many than none.
    ages = _ages(held, now)
    if ageless := [item for item in held if item.unread and item not in ages]:
        places = _list(
            f"{topic}/{item.partition} at offset {item.stable} ({item.held_up:,} offsets)" for item in ageless
        )
        sentences.append(f"A kafka transaction holds up payments, for how long their timestamps do not say: {places}.")
    return " ".join(sentences)


def _waited_long(waiting: Iterable[PartitionLag], settings: Settings, now: datetime) -> dict[PartitionLag, timedelta]:
    limit = timedelta(minutes=settings.alarm_age_minutes)
    return {item: age for item, age in _ages(waiting, now).items() if age > limit}


def _ages(waiting: Iterable[PartitionLag], now: datetime) -> dict[PartitionLag, timedelta]:
    """Return the age of each unread item, without items whose timestamp is implausible."""
    return {
        item: now - item.oldest_at
        for item in waiting
        if item.unread and item.oldest_at is not None and _is_plausible(item.oldest_at, now)
    }


def _is_plausible(at: datetime, now: datetime) -> bool:
    return _EARLIEST <= at <= now + _CLOCK_AHEAD


def _implausible(topic: str, waiting: Sequence[PartitionLag], now: datetime) -> str:
    stamped = [(item, item.oldest_at) for item in waiting if item.unread and item.oldest_at is not None]
    places = _list(
        f"{topic}/{item.partition} from offset {item.start} ({at:%Y-%m-%d})"
        for item, at in stamped
        if not _is_plausible(at, now)
    )
    return f"The Kafka timestamp is implausible: {places}." if places else ""


def _by_age(ages: dict[PartitionLag, timedelta]) -> list[tuple[PartitionLag, timedelta]]:
    return sorted(ages.items(), key=lambda pair: pair[1], reverse=True)


def _list(places: Iterable[str]) -> str:
    """A topic may have hundreds of partitions."""
    every = list(places)
    more = len(every) - _LISTED
    return ", ".join(every[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _span(length: timedelta) -> str:
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts[:2]) or "0 s"
