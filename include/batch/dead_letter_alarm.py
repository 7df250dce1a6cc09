"""Find the alarm on the share of dead letters, of a published batch or of what a run has recorded in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from include.batch.alarm_texts import DEAD_LETTERS, OUTPUT_DEAD_LETTERS
from include.batch.batch_alarms import Alarm
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts
from include.batch.scored_batch import ScoredBatch
from include.settings import Settings

_MAX_LISTED = 8
# Count a batch whose share of dead letters is too high: add it to those before it, and return all of them, or None if
# nothing can be stored. If the argument is None, forget them.
CountBatch = Callable[[DeadLetterCounts | None], CountedBatches | None]


@dataclass(frozen=True)
class _Wording:
    """How a sentence names the messages: those of one batch or run, and those of several ("{}" is their number)."""

    kind: str
    one: str
    several: str
    dead_letter_topic: str


def find_dead_letter_alarm(
    settings: Settings,
    batch_id: str,
    scored: ScoredBatch,
    committed: Collection[int],
    count: CountBatch,
) -> Alarm | None:
    """Return the alarm of the batch's committed partitions, by the rules of `_judge`."""
    counts = DeadLetterCounts.of_partitions(
        scores for scores in scored.to_publish if scores.part.partition in committed
    )
    one, several = f"of batch {batch_id}", f"of the last {{:,}} batches, to {batch_id},"
    return _judge(settings, counts, _Wording(DEAD_LETTERS, one, several, settings.dead_letter_topic), count)


def find_output_dead_letter_alarm(settings: Settings, recorded: DeadLetterCounts, count: CountBatch) -> Alarm | None:
    """Return the alarm of the output topic's messages that a run has read, by the rules of `_judge`."""
    one = f"of {settings.output_topic}"
    several = f"{one}, in the last {{:,}} runs with such messages,"
    wording = _Wording(OUTPUT_DEAD_LETTERS, one, several, settings.output_dead_letter_topic)
    return _judge(settings, recorded, wording, count)


def _judge(settings: Settings, counts: DeadLetterCounts, wording: _Wording, count: CountBatch) -> Alarm | None:
    """Return an alarm; its cause is the code of the most frequent reason.

    An empty cause ends the alarm: the share of dead letters is below FRAUD_DEAD_LETTER_SHARE.

    None neither raises nor ends it: there are no messages, or the share is reached by fewer dead letters than
    FRAUD_DEAD_LETTER_LEAST, although those of the batches before it that reached the share are added.

    The sentence holds counts and reason codes only.
    """
    if not counts.messages:
        return None
    if counts.share < settings.dead_letter_share:
        count(None)
        return Alarm(
            wording.kind,
            f"{_totals(counts)} {wording.one} became dead letters ({counts.share:.0%}), less than "
            f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}.",
        )
    batches = count(counts)
    judged, which = counts, wording.one
    if counts.dead < settings.dead_letter_least and batches is not None:
        judged, which = batches.total, wording.several.format(batches.number)
    # The share is compared again, because the setting may have been lower when earlier batches were counted.
    if judged.dead < settings.dead_letter_least or judged.share < settings.dead_letter_share:
        return None
    reasons = sorted(judged.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{code} {number:,}" for code, number in reasons[:_MAX_LISTED])
    more = f" and {len(reasons) - _MAX_LISTED} more reasons" if len(reasons) > _MAX_LISTED else ""
    return Alarm(
        wording.kind,
        f"{_totals(judged)} {which} became dead letters ({judged.share:.0%}), "
        f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g} or more: {listed}{more}. They are on "
        f"{wording.dead_letter_topic}.",
        reasons[0][0] if reasons else "unknown",
    )


def _totals(counts: DeadLetterCounts) -> str:
    return f"{counts.dead:,} of {counts.messages:,} messages"
