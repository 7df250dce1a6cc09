"""Runs that publish nothing: each newer run takes over their payments, and only a few batches stay staged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.batch.claims import is_claimed
from include.batch.manifest import Manifest
from include.batch.scored_batch import ScoredBatch
from include.errors import BatchSupersededError, ClusterError, FraudError, StagedFileGoneError, StagingError
from include.kafka import transactional_producers
from tests.integration.test_protocol import payments, scored, send
from tests.integration.test_shards import drained_and_scored, fill
from tests.support.scoring import Scoring


class ProcessDied(Exception):  # noqa: N818
    """Raised to stop publish at a given point, as if its process died."""


Make = Callable[..., Scoring]
COUNT = 500
RUNS = 6


def staged(here: Scoring) -> list[str]:
    """Return the batches that have files, oldest first."""
    return [name for hour in here.storage.list("batches") for name in here.storage.list(f"batches/{hour}")]


def size(here: Scoring) -> int:
    return sum(file.stat().st_size for file in Path(here.settings.staging_url).rglob("*") if file.is_file())


def halt_at(wanted: str) -> Callable[[str], None]:
    def on_step(step: str) -> None:
        if step == wanted:
            raise ProcessDied

    return on_step


def take_over(here: Scoring, batch: Manifest) -> None:
    """Let newer runs drain until the claim has ended: several, because batches of one second have no order."""
    while is_claimed(here.storage, batch):
        here.drain_and_predict()


def check_all_come_out_once(here: Scoring, count: int = COUNT) -> None:
    here.run()
    assert scored(here) == sorted(f"0/{offset}" for offset in range(count))
    assert not here.drain().partitions


def test_staging_area_stays_three_batches_large_while_nothing_is_published(scoring: Make):
    """As during an outage of MLflow: each run drains, and none publishes."""
    here = scoring()
    send(here, *payments(*range(COUNT)))
    here.drain()
    one = size(here)
    for _ in range(RUNS):
        here.drain()
        assert size(here) <= 3 * one
    assert len(staged(here)) <= 3
    check_all_come_out_once(here)


@pytest.mark.parametrize("point", ["before fence", "before transaction", "offsets sent"])
def test_staging_area_stays_three_batches_large_while_publish_fails(scoring: Make, point: str):
    here = scoring()
    send(here, *payments(*range(COUNT)))
    for _ in range(RUNS):
        with pytest.raises(ProcessDied):
            here.publish(here.drain_and_predict(), halt_at(point))
        assert len(staged(here)) <= 3
        assert len(here.outbox.entries()) <= 3
    check_all_come_out_once(here)
    # Batches without a commit have no pending report.
    assert len([report.key for report in here.outbox.pending_reports()]) == 1
    assert here.outbox.unreadable() == {}


def test_batch_of_another_airflow_is_left_alone(scoring: Make):
    """Its run may still be at work: only older runs of the same DAG have ended."""
    here = scoring()
    send(here, *payments(1, 2))

    def run_of(airflow: str, number: int) -> Manifest:
        url = f"http://{airflow}/dags/score_payments/runs/{number}"
        return here.drain(f"run {number}", url)

    other = run_of("other", 0)
    for number in range(RUNS):
        run_of("one", number)
    here.predict_without_model(other)
    assert here.publish(other).predictions == 2


@pytest.mark.parametrize("point", ["before fence", "before transaction", "produced", "offsets sent"])
def test_frozen_publisher_of_a_superseded_batch_publishes_nothing(scoring: Make, point: str):
    here = scoring()
    send(here, *payments(*range(COUNT)))

    batch = here.drain_and_predict()

    def frozen(step: str) -> None:
        if step == point:
            take_over(here, batch)

    errors = {"before fence": BatchSupersededError, "before transaction": FraudError}
    with pytest.raises(errors.get(point, ClusterError), match=r"taken over|fenced"):
        here.publish(batch, frozen)
    assert scored(here) == []
    assert batch.batch_id not in staged(here) or ScoredBatch.publishing_has_begun(here.storage, batch.folder)
    assert batch.batch_id not in here.outbox.entries()
    assert here.outbox.unreadable() == {}
    check_all_come_out_once(here)


def test_commit_without_a_record_keeps_its_report(scoring: Make):
    """Its publisher is frozen between the commit and its record; newer runs take over the rest."""
    here = scoring()
    send(here, *payments(1, 2))

    batch = here.drain_and_predict()

    def frozen(point: str) -> None:
        if point == "committed":
            send(here, *payments(3))
            take_over(here, batch)
            raise ProcessDied

    with pytest.raises(ProcessDied):
        here.publish(batch, frozen)
    (report,) = here.outbox.pending_reports()
    assert (report.key, [fraud.source for fraud in report.frauds]) == (
        batch.batch_id,
        [f"{here.settings.input_topic}/0/{offset}" for offset in (0, 1)],
    )
    assert set(here.publish(batch).outcomes.values()) != set()
    check_all_come_out_once(here, 3)


def test_staged_copies_of_a_failing_partition_do_not_pile_up(scoring: Make):
    """The other partition is published by each run, and its reports are pending."""
    here = scoring(2)
    send(here, *payments(*range(COUNT)), partition=1)
    batches = []
    for number in range(RUNS):
        send(here, *payments(number), partition=0)
        manifest = here.drain_and_predict()
        scores = ScoredBatch.load(here.storage, manifest)
        here.storage.delete(f"{scores.partitions[1].staged}/predictions-1-0.parquet")
        with pytest.raises(StagingError, match="predictions-1-0"):
            here.publish(manifest)
        batches.append(manifest.batch_id)
    copies = list(Path(here.settings.staging_url).rglob("payments-1-*.parquet"))
    assert len(copies) <= 3
    assert sorted(report.key for report in here.outbox.pending_reports()) == sorted(batches)
    assert [[fraud.row for fraud in report.frauds] for report in here.outbox.pending_reports()] == [[0]] * RUNS
    assert len(here.outbox.open_entries()) <= 3
    here.run()
    assert len(scored(here)) == COUNT + RUNS


def test_task_of_superseded_batch_names_the_cause(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    batch = here.drain()
    take_over(here, batch)
    with pytest.raises(StagedFileGoneError, match=r"newer runs have taken over .*nothing needs to be done"):
        here.predict_without_model(batch)


def test_partition_that_cannot_be_fenced_stops_no_other(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    """As during an outage of its transaction coordinator: the broker rejects an empty transactional id."""
    here, runs = scoring(2), 4
    send(here, *payments(*range(COUNT)), partition=1)
    with monkeypatch.context() as patch:
        named = transactional_producers.transactional_id
        patch.setattr(transactional_producers, "transactional_id", lambda *at: "" if at[-1] == 1 else named(*at))
        for number in range(runs):
            send(here, *payments(number), partition=0)
            with pytest.raises(ClusterError, match="/1: earlier producers cannot be fenced"):
                here.run()
            assert scored(here) == [f"0/{offset}" for offset in range(number + 1)]
    here.run()
    assert len(scored(here)) == COUNT + runs
    here.drain()
    here.drain()
    # Sorted, because batches of the same second have no order.
    assert sorted(report.facts.frauds for report in here.outbox.pending_reports()) == [1] * runs + [COUNT]
    assert (here.outbox.open_entries(), here.outbox.unreadable()) == ([], {})
    assert not list(Path(here.settings.staging_url).rglob("payments-1-*.parquet"))[3:]


def test_batch_of_a_version_without_claims_is_published(scoring: Make):
    """Newer runs have drained since."""
    here = scoring()
    send(here, *payments(*range(COUNT)))
    plain = here.drain_and_predict().to_dict()
    plain.pop("has_claim", None)
    batch = Manifest.from_dict(plain)
    batch.save(here.storage)
    here.storage.delete("claims")
    here.storage.delete(f"{batch.folder}/claim")
    for _ in range(RUNS):
        here.drain()
    assert here.publish(batch).predictions == COUNT
    assert [report.key for report in here.outbox.pending_reports()] == [batch.batch_id]
    check_all_come_out_once(here)


def test_superseded_shard_keeps_the_report_of_a_committed_shard(scoring: Make):
    here = scoring(2)
    sent = fill(here, 2, 3)
    batch = drained_and_scored(here, 2)
    (first,), _ = batch.shards

    def frozen(point: str) -> None:
        if point == "before transaction":
            # A newer run does this before it fences.
            here.storage.delete(f"{batch.folder}/claim")
            with pytest.raises(BatchSupersededError):
                here.publish(batch, shard=1)

    here.publish(batch, frozen, shard=0)
    (report,) = here.outbox.pending_reports()
    assert [place[1] for place in report.facts.ranges] == [first]
    here.run()
    assert scored(here) == sent
    here.drain()
    here.drain()
    assert sorted([place[1] for place in report.facts.ranges] for report in here.outbox.pending_reports()) == [[0], [1]]
    assert here.outbox.open_entries() == []


def test_entry_that_is_opened_after_its_batch_was_removed_is_closed(scoring: Make):
    here = scoring()
    send(here, *payments(1, 2))
    batch = here.drain_and_predict()
    take_over(here, batch)
    # Its publisher continues to this point, and is killed.
    here.outbox.open_entry(batch)
    assert list(here.outbox.unreadable()) == [batch.batch_id]
    here.drain()
    assert (here.outbox.entries(), here.outbox.unreadable()) == ([], {})
    check_all_come_out_once(here, 2)


def test_entry_of_a_committed_batch_without_files_stays(scoring: Make):
    """Even after commits of other batches: a fraud may be among its payments."""
    here = scoring()
    send(here, *payments(1, 2))
    batch = here.drain_and_predict()
    with pytest.raises(ProcessDied):
        here.publish(batch, halt_at("committed"))
    here.storage.delete(batch.folder)
    for number in range(RUNS):
        send(here, *payments(number))
        here.run()
    assert list(here.outbox.unreadable()) == [batch.batch_id]
