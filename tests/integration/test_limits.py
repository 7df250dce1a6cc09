"""Time limits and memory limits of a run: messages that it does not finish stay on the topic for the next runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.batch import chunks
from include.batch import predict as step
from include.batch.batch_alarms import find_backlog_alarm
from include.batch.manifest import Manifest
from include.batch.scored_batch import ScoredBatch
from include.models import scoring as scores
from include.models.load import LoadedModel, load
from tests.integration.test_protocol import committed_offsets, dead, payments, scored, send
from tests.models.zoo import payment, run_of, save_seed_model
from tests.support import kafka_log
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
RUN = run_of()
NO_SECONDS = 0.0  # The limit is reached at once.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(RUN, save_seed_model(tmp_path_factory.mktemp("model") / "seed"))


@pytest.fixture
def predict(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScoredBatch]:
    """Return a function that predicts with a real model, without MLflow's server."""
    monkeypatch.setattr(step, "_load", lambda settings, run: model)

    def score(scoring: Scoring, manifest: Manifest, shard: int = 0) -> ScoredBatch:
        return step.predict(scoring.settings, scoring.storage, manifest, RUN, shard)

    return score


def message(*amounts: float) -> bytes:
    rows = [list(payment(amt=amount).values()) for amount in amounts]
    return json.dumps({"columns": list(payment()), "data": rows}).encode()


def test_reading_stops_at_the_time_limit_and_the_next_run_continues(scoring: Make):
    here = scoring(2, max_seconds=NO_SECONDS)
    for partition in (0, 1):
        send(here, *payments(*range(12_000)), partition=partition)
    manifest = here.drain()
    assert 0 < manifest.payments < 24_000
    assert manifest.left_for_later_runs == 24_000 - manifest.payments
    # A partition of which nothing was read counts as well.
    settings = here.change(alarm_lag=1_000).settings
    ends = {part.partition: part.end for part in manifest.partitions}
    alarm = find_backlog_alarm(Manifest.load_plan(here.storage, manifest.batch_id), ends, settings)
    left = f"{manifest.left_for_later_runs:,} offsets of {here.settings.input_topic} are left"
    assert alarm.sentence.startswith(left)
    runs = 0
    while manifest.partitions:
        here.predict_without_model(manifest, lambda offset: False)
        here.publish(manifest)
        manifest = here.drain()
        runs += 1
    assert runs > 1
    assert committed_offsets(here) == {0: 12_000, 1: 12_000}
    assert Counter(scored(here)) == Counter(f"{partition}/{at}" for partition in (0, 1) for at in range(12_000))


def test_scoring_stops_at_the_time_limit_between_two_messages(scoring: Make, predict: Callable[..., ScoredBatch]):
    """The first call scores 2,000 payments, up to the middle of the message at offset 666, whose rows stay together."""
    here = scoring(1)
    send(here, *[message(999, 2, 3)] * 1_000, b"no JSON")
    late = here.change(max_seconds=NO_SECONDS)
    manifest = here.drain()
    first = predict(late, manifest)
    assert first.scored == 666 * 3
    assert first.offsets_left(manifest) == 1_001 - 666
    assert here.publish(manifest).newest is None
    assert committed_offsets(here) == {0: 666}
    assert dead(here) == []
    (report,) = here.outbox.pending_reports()
    assert report.facts.ranges == ((here.settings.input_topic, 0, 0, 666),)
    assert len(list(report.frauds)) == report.facts.frauds == 666
    manifest = here.drain()
    assert predict(late, manifest).scored == 334 * 3
    here.publish(manifest)
    assert Counter(scored(here)) == Counter({f"0/{at}": 3 for at in range(1_000)})
    assert dead(here) == ["0/1000"]
    assert not here.drain().partitions


def test_message_that_takes_longer_than_the_limit_is_scored_whole(
    scoring: Make, predict: Callable[..., ScoredBatch], monkeypatch: pytest.MonkeyPatch
):
    """Otherwise each run would begin it, and none would finish it."""
    monkeypatch.setattr(step, "_MAX_PAYMENTS", 800)
    monkeypatch.setattr("include.batch.chunk_groups._GROUP_ROWS", 400)
    here = scoring(1)
    send(here, message(*[1.0] * 2_500), message(*[2.0] * 2_500))
    late = here.change(max_seconds=NO_SECONDS)
    for offset in (1, 2):
        manifest = here.drain()
        assert predict(late, manifest).scored == 2_500
        here.publish(manifest)
        assert committed_offsets(here) == {0: offset}


def test_large_message_with_a_dead_letter_first_is_scored_whole(
    scoring: Make, predict: Callable[..., ScoredBatch], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step, "_MAX_PAYMENTS", 800)
    monkeypatch.setattr("include.batch.chunk_groups._GROUP_ROWS", 400)
    here = scoring(1)
    rows = json.loads(message(*[1.0] * 2_500))
    rows["data"].insert(0, "no row")
    send(here, json.dumps(rows).encode(), message(1.0))
    manifest = here.drain()
    found = predict(here.change(max_seconds=NO_SECONDS), manifest)
    assert found.scored >= 2_500
    here.publish(manifest)
    assert (committed_offsets(here)[0] or 0) >= 1
    assert dead(here) == ["0/0"]


def test_model_scores_groups_of_limited_bytes(
    scoring: Make, predict: Callable[..., ScoredBatch], monkeypatch: pytest.MonkeyPatch
):
    for limit in ("include.batch.drain._MAX_BUFFERED_ROWS", "include.kafka.range_reader._MAX_MESSAGES"):
        monkeypatch.setattr(limit, 10)
    monkeypatch.setattr("include.batch.chunk_groups._GROUP_BYTES", 30 * len(message(1.0)))
    sizes: list[int] = []
    score = scores.score

    def counted(model: LoadedModel, asked: list[bytes], **named: Any) -> Any:
        sizes.append(len(asked))
        return score(model, asked, **named)

    monkeypatch.setattr(scores, "score", counted)
    here = scoring(1)
    send(here, *[message(1.0)] * 200)
    manifest = here.drain()
    assert predict(here, manifest).scored == 200
    assert sizes == [40] * 5


def test_dead_letters_before_the_cut_are_published_and_later_ones_wait(
    scoring: Make, predict: Callable[..., ScoredBatch]
):
    here = scoring(1)
    send(here, b"first", *[message(1)] * 2_000, b"second", *[message(2)] * 10, b"third")
    manifest = here.drain()
    assert predict(here.change(max_seconds=NO_SECONDS), manifest).dead_letters == 2
    here.publish(manifest)
    assert dead(here) == ["0/0", "0/2001"]
    assert committed_offsets(here) == {0: 2002}


def test_partitions_that_waited_longest_are_scored_first(scoring: Make, predict: Callable[..., ScoredBatch]):
    here = scoring(3, max_seconds=NO_SECONDS)
    for partition in (2, 0, 1):
        send(here, *[message(1)] * 2_000, partition=partition)
    order = []
    for _ in range(3):
        manifest = here.change(max_seconds=60.0).drain()
        waiting = sum(part.end - part.start for part in manifest.partitions)
        assert predict(here, manifest).offsets_left(manifest) == waiting - 2_000
        before = committed_offsets(here)
        here.publish(manifest)
        order.append([partition for partition, at in committed_offsets(here).items() if at != before[partition]])
    assert order == [[2], [0], [1]]
    assert len(kafka_log.read_all(here.kafka["bootstrap.servers"], here.settings.output_topic)) == 6_000


def test_shard_that_is_scored_late_gets_the_published_shards_model(scoring: Make, predict: Callable[..., ScoredBatch]):
    here = scoring(2)
    for partition in (0, 1):
        send(here, message(1), partition=partition)
    manifest = here.plan(2)
    for shard in (0, 1):
        here.drain_shard(manifest, shard)
    predict(here, manifest, 0)
    here.publish(manifest, shard=0)
    other = run_of(run_id="1" * 32)
    late = step.predict(here.settings, here.storage, manifest, other, 1)
    assert late.model["run_id"] == RUN.run_id
    here.publish(manifest, shard=1)
    assert scored(here) == ["0/0", "1/0"]


def test_batch_counts_the_offsets_that_are_left(scoring: Make, predict: Callable[..., ScoredBatch], tmp_path: Path):
    here = scoring(1, max_payments=3)
    send(here, *[message(1)] * 5)
    manifest = here.drain()
    assert (manifest.left_for_later_runs, manifest.payments) == (2, 3)
    assert manifest.oldest is not None
    assert manifest.newest is not None
    assert manifest.oldest <= manifest.newest
    assert predict(here, manifest).offsets_left(manifest) == 2
    assert here.publish(manifest).newest == manifest.newest


def test_chunk_ends_between_two_messages(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    """One message can hold thousands of rows, so the limit is checked after each message."""
    monkeypatch.setattr("include.batch.drain._MAX_BUFFERED_ROWS", 7)
    here = scoring(2)
    for partition in (0, 1):
        send(here, *[message(1, 2, 3)] * 10, b"no JSON", *payments(1), partition=partition)
    manifest = here.drain()
    assert (manifest.payments, manifest.dead_letters) == (62, 2)
    for part in manifest.partitions:
        assert part.chunks > 3
        for number in range(part.chunks):
            rows = chunks.read_payments(here.storage, part.staged, part.partition, number, ("offset", "row"))
            assert len(rows["offset"]) <= 9
            # Each message is whole, and messages are in order.
            assert sorted(rows["offset"]) == rows["offset"]
            assert not rows["row"][0]
    here.predict_without_model(manifest)
    here.publish(manifest)
    assert Counter(scored(here)) == Counter(
        {f"{p}/{at}": 3 for p in (0, 1) for at in range(10)} | {"0/11": 1, "1/11": 1}
    )


@pytest.mark.timeout(120)
def test_empty_messages_count_as_buffered(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.batch.drain._MAX_BUFFERED_ROWS", 7)
    here = scoring(2)
    send(here, *payments(1), partition=0)
    send(here, *[None] * 30, partition=1)
    manifest = here.drain()
    assert (manifest.payments, manifest.dead_letters) == (1, 30)
    assert sum(part.chunks for part in manifest.partitions) <= 31
    here.predict_without_model(manifest)
    here.publish(manifest)
    assert (scored(here), len(dead(here))) == (["0/0"], 30)


def test_keys_and_headers_count_as_buffered(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("include.batch.drain._MAX_BUFFERED_BYTES", 20_000)
    here = scoring()
    producer = kafka_log.producer(str(here.kafka["bootstrap.servers"]))
    for value in [*payments(*range(10)), *[b"no JSON"] * 10]:
        producer.produce(here.settings.input_topic, value, b"k" * 2_000, headers=[("trace", b"h" * 2_000)])
    assert producer.flush(30) == 0
    manifest = here.drain()
    assert (manifest.payments, manifest.dead_letters) == (10, 10)
    assert sum(part.chunks for part in manifest.partitions) > 2
