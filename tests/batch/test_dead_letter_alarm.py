from __future__ import annotations

from pathlib import Path

import pytest

from include.batch.alarm_texts import DEAD_LETTERS
from include.batch.batch_alarms import AlarmState
from include.batch.dead_letter_alarm import find_dead_letter_alarm
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts, DeadLetterFile
from include.batch.manifest import PartitionBatch
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.settings import Settings
from include.storage.staging import Storage
from tests.support.scoring import MODEL

SETTINGS = Settings(dead_letter_share=0.2, dead_letter_least=10)


def batch(*partitions: tuple[int, dict[str, int]]) -> ScoredBatch:
    """Return a batch. Each partition: the number of scored payments, and dead letters by reason."""
    scores = tuple(
        ScoredPartition(PartitionBatch(number, 0, 1, 0), "folder", scored, 0, sum(reasons.values()), reasons)
        for number, (scored, reasons) in enumerate(partitions)
    )
    return ScoredBatch(MODEL, "2026-01-01T00:00:00+00:00", scores, {})


def found(scored: ScoredBatch, settings: Settings = SETTINGS, committed: set[int] | None = None):
    return find_dead_letter_alarm(
        settings, "a-batch", scored, {0, 1} if committed is None else committed, lambda _: None
    )


def test_batches_counted_with_a_lower_share_raise_no_alarm_after_it_is_raised():
    earlier = CountedBatches({"a-batch": DeadLetterCounts(420, 25, {"not_json": 25})})
    few = batch((15, {"not_json": 5}))
    assert find_dead_letter_alarm(SETTINGS, "a-batch", few, {0}, lambda _: earlier) is None


def test_alarm_lists_the_reasons():
    assert found(batch((0, {"not_json": 200}), (0, {"not_json": 40, "empty_value": 60}))) == AlarmState(
        DEAD_LETTERS,
        "300 of 300 messages of batch a-batch became dead letters (100%), at least FRAUD_DEAD_LETTER_SHARE=0.2: "
        "not_json 240, empty_value 60. They are on topic_1_dead_letters.",
        "not_json",
    )


def test_share_below_the_setting_ends_the_alarm():
    assert found(batch((81, {"not_json": 19}))) == AlarmState(
        DEAD_LETTERS,
        "19 of 100 messages of batch a-batch became dead letters (19%), less than FRAUD_DEAD_LETTER_SHARE=0.2.",
    )
    assert found(batch((80, {"not_json": 20}))).cause == "not_json"


@pytest.mark.parametrize("scored", [batch((0, {"not_json": 9})), batch((0, {}))])
def test_too_few_dead_letters_neither_raise_nor_end_the_alarm(scored: ScoredBatch):
    assert found(scored) is None


def test_only_committed_partitions_count():
    scored = batch((0, {"not_json": 300}), (100, {}))
    assert found(scored, committed={1}).cause == ""
    assert found(scored, committed=set()) is None


def test_settings_define_share_and_least_number():
    scored = batch((90, {"not_json": 10}))
    assert found(scored, SETTINGS.override(dead_letter_share=0.1)).cause == "not_json"
    assert found(scored, SETTINGS.override(dead_letter_share=0.1, dead_letter_least=11)) is None


def test_alarm_lists_only_some_of_many_reasons():
    reasons = {f"code_{number:02}": 30 - number for number in range(20)}
    assert found(batch((0, reasons))).sentence.count("code_") == 8
    assert "and 12 more reasons" in found(batch((0, reasons))).sentence


class Topic:
    """Batches of a topic one after the other, counted in a file as the task `reports` does."""

    def __init__(self, folder: Path) -> None:
        self.file = DeadLetterFile(Storage.open(str(folder)), "dead_letter_counts.json")
        self.batches = 0

    def batch(self, scored: int, reasons: dict[str, int], batch_id: str = "", least: int = 10):
        self.batches += 1
        name = batch_id or f"batch-{self.batches}"

        def count(counts: DeadLetterCounts | None) -> CountedBatches | None:
            return self.file.add(name, counts) if counts is not None else self.file.clear()

        settings = SETTINGS.override(dead_letter_least=least)
        return find_dead_letter_alarm(settings, name, batch((scored, reasons)), {0}, count)


def test_dead_letters_of_several_batches_add_up_to_an_alarm(tmp_path: Path):
    topic = Topic(tmp_path)
    assert topic.batch(0, {"not_json": 9}) is None
    assert topic.batch(0, {}) is None
    assert topic.batch(1, {"not_json": 1, "empty_value": 7}) == AlarmState(
        DEAD_LETTERS,
        "17 of 18 messages of the last 2 batches with dead letters, up to batch-3, became dead letters (94%), "
        "at least FRAUD_DEAD_LETTER_SHARE=0.2: not_json 10, empty_value 7. They are on topic_1_dead_letters.",
        "not_json",
    )
    # A further batch with a dead letter keeps the alarm.
    assert topic.batch(0, {"not_json": 1}).cause == "not_json"


def test_batch_with_a_smaller_share_resets_the_count(tmp_path: Path):
    topic = Topic(tmp_path)
    assert topic.batch(0, {"not_json": 9}) is None
    assert topic.batch(9, {"not_json": 1}).cause == ""
    assert topic.batch(0, {"not_json": 9}) is None


def test_repeated_batch_counts_once(tmp_path: Path):
    topic = Topic(tmp_path)
    for _ in range(3):
        assert topic.batch(0, {"not_json": 9}, "the-same") is None


def test_file_stays_small_for_many_batches(tmp_path: Path):
    topic = Topic(tmp_path)
    for _ in range(199):
        assert topic.batch(0, {"not_json": 1}, least=200) is None
    sentence = topic.batch(0, {"not_json": 1}, least=200).sentence
    assert "200 of 200 messages of the last 200 batches with dead letters" in sentence
    assert (tmp_path / "dead_letter_counts.json").stat().st_size < 2_000


def test_damaged_file_resets_the_count(tmp_path: Path):
    topic = Topic(tmp_path)
    (tmp_path / "dead_letter_counts.json").write_bytes(b"{")
    assert topic.batch(0, {"not_json": 9}) is None
    assert topic.batch(0, {"not_json": 9}).cause == "not_json"
