"""Raise or end the alarm on the share of dead letters in a published batch, or in what a run recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from include.batch.alarm_texts import DEAD_LETTERS, OUTPUT_DEAD_LETTERS
from include.batch.batch_alarms import Alarm
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts
from include.batch.scored_batch import ScoredBatch
from include.settings import Settings

_LISTED = 8
_Count = Callable[[DeadLetterCounts | None], CountedBatches | None]


@dataclass(frozen=True)
class _Words:
    """What a sentence says of the messages that are judged: those of one batch or run, and those of several."""

    kind: str
    one: str
    several: str
    dead_letter_topic: str


def find_dead_letter_alarm(
    settings: Settings,
    batch_id: str,
    scored: ScoredBatch,
    committed: Collection[int],
    count: _Count,
) -> Alarm | None:
    """Return what `_judge` does for the partitions that were published."""
    batch = DeadLetterCounts.of(one for one in scored.due if one.part.partition in committed)
    one, several = f"of batch {batch_id}", f"of the last {{:,}} batches, to {batch_id},"
    return _judge(settings, batch, _Words(DEAD_LETTERS, one, several, settings.dead_letter_topic), count)


def find_output_dead_letter_alarm(settings: Settings, recorded: DeadLetterCounts, count: _Count) -> Alarm | None:
    """Return what `_judge` does for the messages of the output topic that a run has read, dead letters included."""
    one = f"of {settings.output_topic}"
    several = f"{one}, in the last {{:,}} runs with such messages,"
    words = _Words(OUTPUT_DEAD_LETTERS, one, several, settings.output_dead_letter_topic)
    return _judge(settings, recorded, words, count)


def _judge(settings: Settings, batch: DeadLetterCounts, words: _Words, count: _Count) -> Alarm | None:
    """Return an alarm: its cause is the most frequent reason's code, and empty if the share is below
    FRAUD_DEAD_LETTER_SHARE, which ends the alarm. Return None, which neither
    raises nor ends an alarm, if there are no messages, or if the share is reached by fewer than
    FRAUD_DEAD_LETTER_LEAST dead letters, those of earlier such batches included. The sentence holds counts and reason
    codes only.

    `count` adds a batch whose share is reached to those before it and returns all of them, or None if nothing can be
    stored. Called with None, it forgets them.
    """
    if not batch.messages:
        return None
    if batch.share < settings.dead_letter_share:
        count(None)
        return Alarm(
            words.kind,
            f"{_counted(batch)} {words.one} became dead letters ({batch.share:.0%}), less than "
            f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}.",
        )
    batches = count(batch)
    judged, which = batch, words.one
    if batch.dead < settings.dead_letter_least and batches is not None:
        judged, which = batches.total, words.several.format(batches.number)
    # Earlier batches were counted by the share that was set then.
    if judged.dead < settings.dead_letter_least or judged.share < settings.dead_letter_share:
        return None
    counted = f"{_counted(judged)} {which} became dead letters ({judged.share:.0%})"
    reasons = sorted(judged.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{code} {count:,}" for code, count in reasons[:_LISTED])
    more = f" and {len(reasons) - _LISTED} more reasons" if len(reasons) > _LISTED else ""
    return Alarm(
        words.kind,
        f"{counted}, FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g} or more: {listed}{more}. They are on "
        f"{words.dead_letter_topic}.",
        reasons[0][0] if reasons else "unknown",
    )


def _counted(counts: DeadLetterCounts) -> str:
    return f"{counts.dead:,} of {counts.messages:,} messages"
