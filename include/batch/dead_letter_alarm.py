"""Raise or end the alarm on the share of dead letters in a published batch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from include.batch.advice import DEAD_LETTERS
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts
from include.batch.scored import ScoredBatch
from include.settings import Settings

_LISTED = 8


@dataclass(frozen=True)
class DeadLetterAlarm:
    """`cause`: the most frequent reason's code; empty where the share is below the bound, which ends the alarm."""

    sentence: str
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the XCom `alarms`."""
        return {"kind": DEAD_LETTERS, "sentence": self.sentence, "cause": self.cause}


def find_dead_letter_alarm(
    settings: Settings,
    batch_id: str,
    scored: ScoredBatch,
    committed: Collection[int],
    count: Callable[[DeadLetterCounts | None], CountedBatches | None],
) -> DeadLetterAlarm | None:
    """Return an alarm for the partitions that were published, with an empty `cause` if the share is below
    FRAUD_DEAD_LETTER_SHARE. Return None, which neither raises nor ends an alarm, if nothing was published, or if the
    share is reached by fewer than FRAUD_DEAD_LETTER_LEAST dead letters, those of earlier such batches included. The
    sentence holds counts and reason codes only.

    `count` adds a batch whose share is reached to those before it and returns all of them, or None if nothing can be
    stored. Called with None, it forgets them.
    """
    batch = DeadLetterCounts.of(one for one in scored.due if one.part.partition in committed)
    if not batch.messages:
        return None
    if batch.share < settings.dead_letter_share:
        count(None)
        return DeadLetterAlarm(
            f"{_counted(batch)} of batch {batch_id} became dead letters ({batch.share:.0%}), less than "
            f"FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}."
        )
    batches = count(batch)
    judged, which = batch, f"of batch {batch_id}"
    if batch.dead < settings.dead_letter_least and batches is not None:
        judged, which = batches.total, f"of the last {batches.number:,} batches, to {batch_id},"
    if judged.dead < settings.dead_letter_least:
        return None
    counted = f"{_counted(judged)} {which} became dead letters ({judged.share:.0%})"
    reasons = sorted(judged.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{code} {count:,}" for code, count in reasons[:_LISTED])
    more = f" and {len(reasons) - _LISTED} more reasons" if len(reasons) > _LISTED else ""
    return DeadLetterAlarm(
        f"{counted}, FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g} or more: {listed}{more}. They are on "
        f"{settings.dead_letter_topic}.",
        reasons[0][0] if reasons else "unknown",
    )


def _counted(counts: DeadLetterCounts) -> str:
    return f"{counts.dead:,} of {counts.messages:,} messages"
