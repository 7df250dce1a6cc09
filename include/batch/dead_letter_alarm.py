"""Find the alarm on the share of dead letters: of a batch, or of what a try of `record_predictions` has read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from include.batch.alarm_texts import DEAD_LETTERS, OUTPUT_DEAD_LETTERS
from include.batch.batch_alarms import AlarmState
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts
from include.batch.scored_batch import ScoredBatch
from include.settings import Settings

_MAX_LISTED = 8
# Called with the counts of a batch whose share of dead letters is too high, it adds them to the stored counts, and
# returns all stored counts, or None if nothing can be stored. Called with None, after a batch with a lower share, it
# deletes the stored counts.
UpdateCounts = Callable[[DeadLetterCounts | None], CountedBatches | None]


@dataclass(frozen=True)
class _Wording:
    """The kind of alarm, and the words of its sentence for the messages of one batch or try, and of several.

    In `several`, "{:,}" stands for the number of batches, or of tries of `record_predictions`.
    """

    kind: str
    one: str
    several: str
    dead_letter_topic: str


def find_dead_letter_alarm(
    settings: Settings,
    batch_id: str,
    scored: ScoredBatch,
    committed: Collection[int],
    update_counts: UpdateCounts,
) -> AlarmState | None:
    """Return the state of the alarm for the batch's committed partitions: see `_judge`."""
    partitions = [scored_part for scored_part in scored.to_publish if scored_part.part.partition in committed]
    counts = DeadLetterCounts.of_partitions(partitions)
    one, several = f"of batch {batch_id}", f"of the last {{:,}} batches with dead letters, up to {batch_id},"
    return _judge(settings, counts, _Wording(DEAD_LETTERS, one, several, settings.dead_letter_topic), update_counts)


def find_output_dead_letter_alarm(
    settings: Settings, counts: DeadLetterCounts, update_counts: UpdateCounts
) -> AlarmState | None:
    """Return the state of the alarm for the output topic's messages that a try of the task has read: see `_judge`."""
    one = f"of {settings.output_topic}"
    several = f"{one}, read in the last {{:,}} tries of record_predictions with dead letters,"
    wording = _Wording(OUTPUT_DEAD_LETTERS, one, several, settings.output_dead_letter_topic)
    return _judge(settings, counts, wording, update_counts)


def _judge(
    settings: Settings, counts: DeadLetterCounts, wording: _Wording, update_counts: UpdateCounts
) -> AlarmState | None:
    """Return the alarm's new state, or None if it stays as it was.

    The alarm ends if the share of dead letters is below FRAUD_DEAD_LETTER_SHARE. It is raised if the share is as high
    or higher and there are at least FRAUD_DEAD_LETTER_LEAST dead letters, in this batch or together with the stored
    batches before it. Its cause is the code of the most frequent reason. In all other cases it stays as it was.

    The sentence holds counts and reason codes only.
    """
    if not counts.messages:
        return None
    if counts.share < settings.dead_letter_share:
        update_counts(None)
        return AlarmState(
            wording.kind,
            f"{_totals(counts)} {wording.one} became dead letters ({counts.share:.0%}), less than "
            f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}.",
        )
    batches = update_counts(counts)
    judged, which = counts, wording.one
    if counts.dead < settings.dead_letter_least and batches is not None:
        judged, which = batches.total, wording.several.format(batches.number)
    # The share is compared again, because the setting may have been lower when earlier batches were counted.
    if judged.dead < settings.dead_letter_least or judged.share < settings.dead_letter_share:
        return None
    reasons = sorted(judged.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{code} {number:,}" for code, number in reasons[:_MAX_LISTED])
    more = f" and {len(reasons) - _MAX_LISTED} more reasons" if len(reasons) > _MAX_LISTED else ""
    return AlarmState(
        wording.kind,
        f"{_totals(judged)} {which} became dead letters ({judged.share:.0%}), at least "
        f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}: {listed}{more}. They are on "
        f"{wording.dead_letter_topic}.",
        reasons[0][0] if reasons else "unknown",
    )


def _totals(counts: DeadLetterCounts) -> str:
    return f"{counts.dead:,} of {counts.messages:,} messages"
