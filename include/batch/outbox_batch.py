"""Read a batch with an outbox entry: what was scored and committed of it, and which of its reports are pending."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from include.batch.manifest import Manifest, PartitionBatch
from include.batch.report_marks import ReportMarks
from include.batch.scored_batch import ScoredBatch, ScoredPartition
from include.errors import StagedFileGoneError
from include.kafka.committed_offsets import CommittedOffset
from include.report.report import ReportFacts
from include.storage.staging import Storage

# A commit mark is a file in the batch's folder, named by this and a partition's number. It says that the batch has
# committed the partition.
COMMIT_MARK_PREFIX = "committed-"


def committed_partitions(names: Iterable[str]) -> set[int]:
    """Return the partitions with a commit mark among `names`, the files in a batch's folder."""
    return {int(name.removeprefix(COMMIT_MARK_PREFIX)) for name in names if name.startswith(COMMIT_MARK_PREFIX)}


@dataclass(frozen=True)
class OutboxBatch:
    """A batch that may have pending reports. `committed` are the partitions that it is known to have committed."""

    manifest: Manifest
    scored: ScoredBatch
    committed: set[int]
    reports: ReportMarks

    @classmethod
    def load(cls, storage: Storage, batch_id: str) -> OutboxBatch:
        """Read the batch from its folder. Raise StagingError if a file is missing or cannot be read."""
        manifest = Manifest.load_plan(storage, batch_id)
        scored = ScoredBatch.load(storage, manifest)
        names = storage.list(manifest.folder)
        batch = cls(manifest, scored, committed_partitions(names), ReportMarks.read(storage, manifest.folder, names))
        if missing := batch.committed - {part.partition for part in batch.partitions}:
            raise StagedFileGoneError(
                f"the scores of committed partitions {sorted(missing)} are missing from {manifest.folder}"
            )
        return batch

    @property
    def partitions(self) -> list[PartitionBatch]:
        """Return the partitions that the batch commits, or has committed, of all shards that are scored.

        The DAG publishes no shard before all are scored, unless a person sets a `predict` task to success by hand.
        """
        return [one.part for one in self.scored.to_publish]

    @property
    def all_committed(self) -> bool:
        """Return whether all of `partitions` are known to be committed."""
        return {part.partition for part in self.partitions} <= self.committed

    def pending_reports(self) -> list[list[ScoredPartition]]:
        """Return the partitions of each pending report.

        First come the reports that an attempt began to mail, with the same partitions as then. All other committed
        partitions share a report, if there is a fraud among them.
        """
        begun = [
            [one for one in self.scored.to_publish if one.part.partition in partitions]
            for partitions in self.reports.begun
        ]
        unreported = self.committed.difference(self.reports.deliveries, *self.reports.begun)
        rest = [one for one in self.scored.to_publish if one.part.partition in unreported]
        return [*filter(None, begun), *([rest] if any(one.frauds for one in rest) else [])]

    def is_final(self, committed: Mapping[int, CommittedOffset]) -> bool:
        """Return whether the batch can commit nothing more: each of `partitions` is committed, by it or by others.

        `committed` has the group's offsets; nothing is concluded about partitions that are not in it.
        """
        return all(
            part.partition in self.committed
            or (part.partition in committed and not part.is_unchanged(committed[part.partition]))
            for part in self.partitions
        )

    def facts(self, partitions: list[ScoredPartition], output_topic: str) -> ReportFacts:
        """Return what a report of these partitions says about the batch."""
        manifest, model = self.manifest, self.scored.model
        name, version = model.get("name"), model.get("version")
        return ReportFacts(
            batch_id=manifest.batch_id,
            run_id=manifest.run_id,
            run_url=manifest.run_url,
            model_label=f"{name} version {version}" if name else f"run {model['run_id'][:8]}",
            model_run_id=model["run_id"],
            model_url=model.get("url") or "",
            ranges=tuple((manifest.topic, one.part.partition, one.part.start, one.part.end) for one in partitions),
            scored=sum(one.scored for one in partitions),
            frauds=sum(one.frauds for one in partitions),
            dead_letters=sum(one.dead_letters for one in partitions),
            scored_at=datetime.fromisoformat(self.scored.scored_at),
            output_topic=output_topic,
            group=manifest.group,
        )
