"""The steps of a run without Airflow, for tests with their own topics, group and staging area."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from include.batch import chunks
from include.batch.batch_alarms import AlarmState
from include.batch.drain import drain
from include.batch.manifest import Drained, Manifest
from include.batch.outbox import Outbox
from include.batch.planner import plan, plan_alarms
from include.batch.publish import Published, publish
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.kafka.admin import Admin
from include.kafka.cluster import Cluster
from include.kafka.consumer_group import ConsumerGroup
from include.report.report import ReportDelivery
from include.settings import Settings
from include.storage.staging import Storage

MODEL = {
    "run_id": "f" * 32, "model_uri": "models:/m-0", "experiment": "e", "name": None, "version": None,
    "asked": "latest", "chosen_by": "default", "reason": None, "url": "", "threshold": None,
}  # fmt: skip

DELIVERY = ReportDelivery("<a-report@test>", ("analyst@bank.test",), datetime(2026, 1, 1, 0, 5, tzinfo=UTC), 0.25)


@dataclasses.dataclass(frozen=True)
class Scoring:
    kafka: dict[str, Any]
    settings: Settings

    @property
    def cluster(self) -> Cluster:
        """Return a new cluster each time, because a broker may have restarted."""
        return Cluster(self.kafka)

    @contextmanager
    def group(self) -> Iterator[ConsumerGroup]:
        cluster = self.cluster
        topic = cluster.describe_topic(self.settings.input_topic)
        with ConsumerGroup.open(cluster, self.settings.group, topic) as group:
            yield group

    @property
    def storage(self) -> Storage:
        return Storage.open(self.settings.staging_url)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.storage, self.settings.group, self.settings.input_topic, self.settings.output_topic)

    def change(self, **settings: Any) -> Scoring:
        return dataclasses.replace(self, settings=self.settings.override(**settings))

    def plan(self, shards: int, run_id: str = "a run", run_url: str = "http://airflow/run") -> Manifest:
        settings = self.settings.override(shards=shards)
        return plan(self.cluster, settings, self.storage, run_id=run_id, run_url=run_url)

    def drain_shard(self, manifest: Manifest, shard: int) -> Drained:
        return drain(self.cluster, self.settings, self.storage, manifest, shard)

    def drain(self, run_id: str = "a run", run_url: str = "http://airflow/run") -> Manifest:
        """Plan a batch of one shard and read it."""
        manifest = self.plan(1, run_id, run_url)
        return manifest.with_drained([self.drain_shard(manifest, shard) for shard in range(len(manifest.shards))])

    def alarms(self, manifest: Manifest) -> list[AlarmState]:
        """Return those that a planned batch raises."""
        return [alarm for alarm in plan_alarms(self.cluster, self.settings, manifest) if alarm.is_raised]

    def predict_without_model(
        self, manifest: Manifest, frauds: Callable[[int], bool] = lambda offset: True, shard: int = 0
    ) -> None:
        """Stage predictions as predict does. `frauds` decides by offset which payments are fraud."""
        if not manifest.partitions:
            return
        counts, reasons, folder = [], Counter[str](), manifest.new_attempt_folder()
        for part in Manifest.load(self.storage, manifest.batch_id).shard_partitions(shard):
            found = 0
            for number in range(part.chunks):
                staged = chunks.read_payments(self.storage, part.staged, part.partition, number, ("offset", "reason"))
                reason = staged["reason"]
                prediction = [
                    None if why else int(frauds(at)) for at, why in zip(staged["offset"], reason, strict=True)
                ]
                chunks.write_predictions(
                    self.storage, folder, part.partition, number,
                    prediction=prediction, probability=[one and 0.9 for one in prediction], reason=reason,
                )  # fmt: skip
                found += prediction.count(1)
            codes = {"empty_value": part.dead_letters} if part.dead_letters else {}
            reasons.update(codes)
            counts.append(ScoredPartition(part, folder, part.payments, found, part.dead_letters, codes))
        scored = ScoredBatch(MODEL, "2026-01-01T00:00:00+00:00", tuple(counts), dict(reasons), 0.5)
        scored.save(self.storage, manifest.folder, shard)

    def drain_and_predict(self) -> Manifest:
        manifest = self.drain()
        self.predict_without_model(manifest)
        return manifest

    def publish(
        self, manifest: Manifest, on_step: Callable[[str], None] = lambda step: None, shard: int = 0
    ) -> Published:
        if not manifest.partitions:
            return Published({}, 0, 0)
        return publish(self.cluster, self.settings, self.storage, manifest, on_step, shard)

    def forget_group(self) -> None:
        """Delete the group, as Kafka does after the retention of its offsets."""
        # To be held until it has answered.
        client = Admin(self.kafka)
        client.delete_consumer_groups([self.settings.group])[self.settings.group].result(30)

    def run(self) -> Published:
        return self.publish(self.drain_and_predict())
