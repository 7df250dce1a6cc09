from __future__ import annotations

from dataclasses import replace

import pytest

from include.batch.dead_letter_alarm import DeadLetterAlarm, find_dead_letter_alarm
from include.batch.manifest import PartitionBatch
from include.batch.scored import PartitionScores, ScoredBatch
from include.settings import Settings
from tests.support.scoring import MODEL

SETTINGS = Settings(dead_letter_share=0.2, dead_letter_least=10)


def batch(*partitions: tuple[int, dict[str, int]]) -> ScoredBatch:
    """Partitions by how many payments were scored, and their dead letters by reason."""
    scores = tuple(
        PartitionScores(PartitionBatch(number, 0, 1, 0), "folder", scored, 0, sum(reasons.values()), reasons)
        for number, (scored, reasons) in enumerate(partitions)
    )
    return ScoredBatch(MODEL, "2026-01-01T00:00:00+00:00", scores, {})


def found(scored: ScoredBatch, settings: Settings = SETTINGS, committed: set[int] | None = None):
    return find_dead_letter_alarm(settings, "a-batch", scored, {0, 1} if committed is None else committed)


def test_batch_of_only_dead_letters_lists_reasons():
    assert found(batch((0, {"not_json": 200}), (0, {"not_json": 40, "empty_value": 60}))) == DeadLetterAlarm(
        "300 of 300 messages of batch a-batch became dead letters (100%), FRAUD_DEAD_LETTER_SHARE=0.2 or more: "
        "not_json 240, empty_value 60. They are on topic_1_dead_letters.",
        "not_json",
    )


def test_a_share_below_the_bound_ends_the_alarm():
    assert found(batch((81, {"not_json": 19}))) == DeadLetterAlarm(
        "19 of 100 messages of batch a-batch became dead letters (19%), less than FRAUD_DEAD_LETTER_SHARE=0.2."
    )
    assert found(batch((80, {"not_json": 20}))).cause == "not_json"


@pytest.mark.parametrize("scored", [batch((0, {"not_json": 9})), batch((0, {}))])
def test_too_few_dead_letters_neither_raise_nor_end_the_alarm(scored: ScoredBatch):
    assert found(scored) is None


def test_only_what_was_published_counts():
    scored = batch((0, {"not_json": 300}), (100, {}))
    assert found(scored, committed={1}).cause == ""
    assert found(scored, committed=set()) is None


def test_share_and_least_number_are_settings():
    scored = batch((90, {"not_json": 10}))
    assert found(scored, replace(SETTINGS, dead_letter_share=0.1)).cause == "not_json"
    assert found(scored, replace(SETTINGS, dead_letter_share=0.1, dead_letter_least=11)) is None


def test_many_reasons_are_not_all_listed():
    reasons = {f"code_{number:02}": 30 - number for number in range(20)}
    assert found(batch((0, reasons))).sentence.count("code_") == 8
    assert "and 12 more reasons" in found(batch((0, reasons))).sentence
