"""Raise or end the alarm on the share of dead letters in a published batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from include.batch.advice import DEAD_LETTERS
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
    settings: Settings, batch_id: str, scored: ScoredBatch, committed: Collection[int]
) -> DeadLetterAlarm | None:
    """Return an alarm for the partitions that were published, with an empty `cause` if the share is below
    FRAUD_DEAD_LETTER_SHARE. Return None, which neither raises nor ends an alarm, if nothing was published, or if the
    share is reached by fewer than FRAUD_DEAD_LETTER_LEAST dead letters. The sentence holds counts and reason
    codes only.
    """
    published = [one for one in scored.due if one.part.partition in committed]
    dead = sum(one.dead_letters for one in published)
    messages = dead + sum(one.scored for one in published)
    if not messages:
        return None
    share = dead / messages
    counted = f"{dead:,} of {messages:,} messages of batch {batch_id} became dead letters ({share:.0%})"
    if share < settings.dead_letter_share:
        return DeadLetterAlarm(f"{counted}, less than FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g}.")
    if dead < settings.dead_letter_least:
        return None
    reasons = sum((Counter(one.reasons) for one in published), Counter[str]()).most_common()
    listed = ", ".join(f"{code} {count:,}" for code, count in reasons[:_LISTED])
    more = f" and {len(reasons) - _LISTED} more reasons" if len(reasons) > _LISTED else ""
    return DeadLetterAlarm(
        f"{counted}, FRAUD_DEAD_LETTER_SHARE={settings.dead_letter_share:g} or more: {listed}{more}. They are on "
        f"{settings.dead_letter_topic}.",
        reasons[0][0] if reasons else "unknown",
    )
