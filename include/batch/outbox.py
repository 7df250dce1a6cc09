"""Which batches' reports are still owed: from a batch's first commit until a mail server has accepted its report.

`outbox/<group>/<topic>/<batch>` stands from before the first commit until nothing of that batch can be owed any more,
under the name `<batch>.committed` once no more of it can be published and only the mail is owed: a mail server that is
down for a day leaves many of those, and scoring passes over them without reading them.
In the batch's folder `committed-<partition>` says that a partition got through, and `report-<partition>.json` what
became of a report (`report_marks.py`). A publisher that died before it could say so is spoken for by the note beside
the committed offset. Whenever these make something final, a record of the batch is left for the ledger (`record.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from include.batch.batch_record import StepTimes, write_record
from include.batch.manifest import Manifest, PartitionBatch, folder_of
from include.batch.report_marks import ReportMarks, partitions_of, write_mark
from include.batch.scored_batch import PartitionScores, ScoredBatch
from include.batch.staged_frauds import StagedFrauds
from include.errors import ClusterError, StagedFileGoneError, StagingError
from include.kafka.cluster import Cluster
from include.kafka.committed_offsets import CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.report.report import PendingReport, ReportDelivery, ReportFacts
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)

COMMITTED = ".committed"
_READERS = 16


class Outbox:
    def __init__(self, storage: Storage, group: str, topic: str, output_topic: str = "") -> None:
        self._storage = storage
        self._folder = f"outbox/{quote(group, safe='')}/{topic}"
        self._output_topic = output_topic

    def open_entry(self, manifest: Manifest) -> None:
        if manifest.batch_id not in self.entries():
            self._storage.write(f"{self._folder}/{manifest.batch_id}", b"")

    def entries(self) -> list[str]:
        """Batch ids, oldest first."""
        return list(self._entries())

    def open_entries(self) -> list[str]:
        """Return the ids of batches of which something may still be published."""
        return [name for name, whole in self._entries().items() if not whole]

    def close_entry(self, batch_id: str) -> None:
        """Delete the entry of a batch of which no report is pending and nothing more can be published."""
        self._storage.delete(f"{self._folder}/{batch_id}")
        self._storage.delete(f"{self._folder}/{batch_id}{COMMITTED}")

    def keep_entry(self, batch_id: str) -> None:
        """Record that only the report of this batch is pending still."""
        self._storage.write(f"{self._folder}/{batch_id}{COMMITTED}", b"")
        self._storage.delete(f"{self._folder}/{batch_id}")

    def _entries(self) -> dict[str, bool]:
        """By batch id, whether only its mail is owed still."""
        names = self._storage.list(self._folder)
        return {name.removesuffix(COMMITTED): name.removesuffix(COMMITTED) + COMMITTED in names for name in names}

    def note_commit(self, manifest: Manifest, partition: int, seconds: float | None = None) -> None:
        """`seconds`: what it took, where its publisher is alive to say so."""
        self._storage.write(f"{manifest.folder}/committed-{partition}", msgspec.json.encode(StepTimes(seconds)))

    def committed(self, manifest: Manifest) -> set[int]:
        return _partitions(self._storage.list(manifest.folder), "committed-")

    def note_commits(
        self, read: Callable[[], Mapping[int, CommittedOffset]], ended: Collection[str] = ()
    ) -> Mapping[int, CommittedOffset]:
        """Marks what the group's offsets prove, and closes the entries of which nothing can be owed any more.

        `ended`: batches whose claim has ended, so that no more of them can be published.
        `read` asks for the offsets, all or some. Only after the entries are listed: a batch that was planned since
        would look as if the group had moved on without it.
        """
        entries = self.open_entries()
        committed = read()
        for batch_id, batch in self._batches(entries):
            if isinstance(batch, StagingError):
                continue
            for part in batch.parts:
                now = committed.get(part.partition)
                if now is not None and now.batch == batch_id and part.partition not in batch.committed:
                    log.info("batch %s had committed partition %s", batch_id, part.partition)
                    self.note_commit(batch.manifest, part.partition)
                    batch.committed.add(part.partition)
            # One whose record could not be left is looked at again by the next run.
            if not (batch_id in ended or batch.is_settled(committed)) or not self._leave_record(batch):
                continue
            if batch.pending_reports():
                self.keep_entry(batch_id)
            else:
                self.close_entry(batch_id)
        return committed

    def owed_batches(self) -> list[str]:
        """The ids of the batches that `owed` and `unreadable` tell of."""
        entries = self._entries()
        some = [name for name, whole in entries.items() if not whole]
        owing = {
            name for name, batch in self._batches(some) if isinstance(batch, StagingError) or batch.pending_reports()
        }
        return [name for name, whole in entries.items() if whole or name in owing]

    def owed(self) -> Iterator[PendingReport]:
        """Yield pending reports, oldest batch first: the frauds of committed partitions that are not reported yet. A
        batch has two if an attempt began its report before another partition was committed."""
        for batch_id in self.owed_batches():
            # Anew: it may have been sent meanwhile.
            batch = self._batch(batch_id)
            if isinstance(batch, StagingError):
                continue
            for found in (reports := batch.pending_reports()):
                frauds = StagedFrauds(self._storage, batch.manifest.topic, found)
                yield PendingReport(batch_id, self._facts(batch, found), frauds)
            if not reports:
                # Whoever has marked it did not get on to this.
                self._after_mail(batch)

    def unreadable(self) -> dict[str, str]:
        """Why nobody knows what these batches owe. They stay until a person decides: a fraud may be among them."""
        return {
            name: f"{error}. Its committed payments are safe, with batch_id={name} in their headers. Put the file "
            f"back, or give the report up: delete {self._folder}/{name}* in {self._storage.url}"
            for name, error in self._batches(self.entries())
            if isinstance(error, StagingError)
        }

    def begin_report(self, report: PendingReport) -> bool:
        """Record that the report is about to be mailed; return False if another sender has mailed it.

        Raise StagingError if this cannot be recorded: then the report must not be mailed.
        """
        batch, partitions = self._readable(report.key), partitions_of(report)
        if not batch.reports.may_send(partitions):
            return False
        write_mark(self._storage, batch.manifest.folder, partitions, datetime.now(UTC))
        return True

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        """Record that a server has accepted the report. Call it first after acceptance: without the record the report
        is mailed again."""
        folder = folder_of(report.key)
        write_mark(self._storage, folder, partitions_of(report), delivery.at, delivery)
        self._after_mail(self._readable(report.key))

    def _readable(self, batch_id: str) -> _Batch:
        batch = self._batch(batch_id)
        if isinstance(batch, StagingError):
            raise batch
        return batch

    def _after_mail(self, batch: _Batch) -> None:
        batch_id = batch.manifest.batch_id
        if not self._leave_record(batch) or batch.pending_reports():
            return
        if self._entries().get(batch_id) or {part.partition for part in batch.parts} <= batch.committed:
            self.close_entry(batch_id)

    def _leave_record(self, batch: _Batch) -> bool:
        """If any of it was published. False where that fails: scoring goes on all the same."""
        try:
            if batch.committed:
                deliveries = batch.reports.deliveries
                write_record(self._storage, batch.manifest, batch.scored, batch.committed, deliveries)
        except (StagingError, msgspec.MsgspecError, TypeError) as error:
            log.error("the record of batch %s for the ledger could not be left: %s", batch.manifest.batch_id, error)
            return False
        return True

    def _batches(self, batch_ids: list[str]) -> Iterator[tuple[str, _Batch | StagingError]]:
        """Read side by side: each is some requests on S3, and a publish that fails for days leaves thousands."""
        with ThreadPoolExecutor(_READERS) as threads:
            yield from zip(batch_ids, threads.map(self._batch, batch_ids), strict=True)

    def _batch(self, batch_id: str) -> _Batch | StagingError:
        """The error where what is staged cannot be read: it must not hold up the other batches."""
        try:
            manifest = Manifest.load_plan(self._storage, batch_id)
            scored = ScoredBatch.load(self._storage, manifest)
            names = self._storage.list(manifest.folder)
            reports = ReportMarks.read(self._storage, manifest.folder, names)
            batch = _Batch(manifest, scored, _partitions(names, "committed-"), reports)
            if lost := batch.committed - {part.partition for part in batch.parts}:
                raise StagedFileGoneError(f"what predict found of partitions {sorted(lost)} is gone")
        except StagingError as error:
            log.error("nobody knows what is owed of batch %s: %s", batch_id, error)
            return error
        return batch

    def _facts(self, batch: _Batch, found: list[PartitionScores]) -> ReportFacts:
        manifest, model = batch.manifest, batch.scored.model
        name, version = model.get("name"), model.get("version")
        return ReportFacts(
            batch_id=manifest.batch_id,
            run_id=manifest.run_id,
            run_url=manifest.run_url,
            model_label=f"{name} version {version}" if name else f"run {model['run_id'][:8]}",
            model_run_id=model["run_id"],
            model_url=model.get("url") or "",
            ranges=tuple((manifest.topic, one.part.partition, one.part.start, one.part.end) for one in found),
            scored=sum(scores.scored for scores in found),
            frauds=sum(scores.frauds for scores in found),
            dead_letters=sum(scores.dead_letters for scores in found),
            scored_at=datetime.fromisoformat(batch.scored.scored_at),
            output_topic=self._output_topic,
            group=manifest.group,
        )


@dataclass(frozen=True)
class _Batch:
    manifest: Manifest
    scored: ScoredBatch
    committed: set[int]
    reports: ReportMarks

    @property
    def parts(self) -> list[PartitionBatch]:
        return [scores.part for scores in self.scored.due]

    def pending_reports(self) -> list[list[PartitionScores]]:
        """Return the partitions of each pending report: first those of reports that an attempt began, then all other
        committed partitions if there is a fraud among them."""
        reports = self.reports
        begun = [[one for one in self.scored.due if one.part.partition in numbers] for numbers in reports.begun]
        waiting = self.committed.difference(reports.deliveries, *reports.begun)
        rest = [one for one in self.scored.due if one.part.partition in waiting]
        return [*filter(None, begun), *([rest] if any(scores.frauds for scores in rest) else [])]

    def is_settled(self, committed: Mapping[int, CommittedOffset]) -> bool:
        """No partition can be published by this batch any more: each was, or the group has moved on without it."""
        return all(
            part.partition in self.committed
            or (part.partition in committed and not part.is_untouched(committed[part.partition]))
            for part in self.parts
        )


def _partitions(names: list[str], prefix: str) -> set[int]:
    return {int(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}


def note_what_is_committed(cluster: Cluster, settings: Settings, outbox: Outbox) -> None:
    """Asks the broker which batches got through. A broker that does not answer leaves what is known already."""
    try:
        topic = cluster.describe_topic(settings.input_topic)
        with ConsumerGroup.open(cluster, settings.group, topic) as group:
            outbox.note_commits(group.committed_offsets)
    except ClusterError as error:
        log.warning("going on with the commits that are known: %s", error)
