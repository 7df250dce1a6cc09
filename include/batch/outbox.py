"""Keep track of pending reports: from a batch's first commit until a mail server has accepted its report.

A batch has an entry in the outbox, the file `outbox/<group>/<topic>/<batch>`, from before its first commit until it is
final and has no pending report. A batch is final when it can commit nothing more. If it is final but has a pending
report, the entry is renamed to `<batch>.committed`: a mail server that is down for a day leaves many of these, and
scoring skips them without reading their batches.

In the batch's folder, the commit mark `committed-<partition>` says that a partition is committed, and
`report-<partition>.json` what became of a report (`report_marks.py`). If a publisher dies before it writes the commit
mark, the commit note beside the group's offset tells the same. A batch record for the ledger (`batch_record.py`) is
written when the batch becomes final, and after each delivery of a report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from include.batch.batch_id import folder_of
from include.batch.batch_record import StepDuration, write_record
from include.batch.manifest import Manifest
from include.batch.outbox_batch import COMMIT_MARK_PREFIX, OutboxBatch, committed_partitions
from include.batch.report_marks import partitions_of, write_mark
from include.batch.staged_frauds import StagedFrauds
from include.errors import ClusterError, StagingError
from include.kafka.cluster import Cluster
from include.kafka.committed_offsets import CommittedOffset
from include.kafka.consumer_group import ConsumerGroup
from include.report.report import PendingReport, ReportDelivery
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)

# Ends the name of a final batch's entry while a report is pending.
FINAL_SUFFIX = ".committed"
_READ_THREADS = 16


class Outbox:
    """The outbox of a group on an input topic. Methods raise StagingError if the staging area cannot be used."""

    def __init__(self, storage: Storage, group: str, topic: str, output_topic: str = "") -> None:
        """`output_topic` is named in reports."""
        self._storage = storage
        self._folder = f"outbox/{quote(group, safe='')}/{topic}"
        self._output_topic = output_topic

    def open_entry(self, manifest: Manifest) -> None:
        """Create a batch's entry, if it has none. Call it before the batch's first commit."""
        if manifest.batch_id not in self.entries():
            self._storage.write(f"{self._folder}/{manifest.batch_id}", b"")

    def entries(self) -> list[str]:
        """Return the ids of the batches with an entry, oldest first."""
        return list(self._list_entries())

    def open_entries(self) -> list[str]:
        """Return the ids of the batches that may still commit something, oldest first."""
        return [batch_id for batch_id, is_final in self._list_entries().items() if not is_final]

    def close_entry(self, batch_id: str) -> None:
        """Delete the entry of a final batch without a pending report."""
        self._storage.delete(f"{self._folder}/{batch_id}")
        self._storage.delete(f"{self._folder}/{batch_id}{FINAL_SUFFIX}")

    def mark_final(self, batch_id: str) -> None:
        """Rename the entry of a final batch with a pending report."""
        self._storage.write(f"{self._folder}/{batch_id}{FINAL_SUFFIX}", b"")
        self._storage.delete(f"{self._folder}/{batch_id}")

    def _list_entries(self) -> dict[str, bool]:
        """Return by batch id whether the entry's name says that the batch is final."""
        names = self._storage.list(self._folder)
        batch_ids = dict.fromkeys(name.removesuffix(FINAL_SUFFIX) for name in names)
        return {batch_id: batch_id + FINAL_SUFFIX in names for batch_id in batch_ids}

    def record_commit(self, manifest: Manifest, partition: int, seconds: float | None = None) -> None:
        """Write the commit mark of a partition. `seconds`: from the start of `publish` to the commit, if known."""
        data = msgspec.json.encode(StepDuration(seconds))
        self._storage.write(f"{manifest.folder}/{COMMIT_MARK_PREFIX}{partition}", data)

    def committed_partitions(self, manifest: Manifest) -> set[int]:
        """Return the partitions with a commit mark of the batch."""
        return committed_partitions(self._storage.list(manifest.folder))

    def record_commits(
        self, read_offsets: Callable[[], Mapping[int, CommittedOffset]], ended: Collection[str] = ()
    ) -> Mapping[int, CommittedOffset]:
        """Write the commit marks that the group's offsets show, and return the offsets.

        If a batch is final, write its batch record, and close its entry, or rename it if a report is pending.

        `read_offsets` returns the committed offsets of all partitions, or of some. It is called after the entries are
        listed. In the other order, a batch that is planned and opens its entry in between would be compared with
        offsets that are older than its plan, and look as if another batch had committed its payments. `ended` are the
        batches that `Claims.end_older` returned: they are final.
        """
        entries = self.open_entries()
        committed = read_offsets()
        for batch_id, batch in self._load_batches(entries):
            if isinstance(batch, StagingError):
                continue
            for part in batch.partitions:
                offset = committed.get(part.partition)
                if offset is not None and offset.batch == batch_id and part.partition not in batch.committed:
                    log.info("batch %s: its commit of partition %s is found by the note", batch_id, part.partition)
                    self.record_commit(batch.manifest, part.partition)
                    batch.committed.add(part.partition)
            # Without its batch record the entry stays as it is, and the next run tries again.
            if not (batch_id in ended or batch.is_final(committed)) or not self._write_record(batch):
                continue
            if batch.pending_reports():
                self.mark_final(batch_id)
            else:
                self.close_entry(batch_id)
        return committed

    def pending_batches(self) -> list[str]:
        """Return the ids of the batches with a pending report, and of those that cannot be read, oldest first."""
        entries = self._list_entries()
        batches = self._load_batches([batch_id for batch_id, is_final in entries.items() if not is_final])
        pending = {
            batch_id for batch_id, batch in batches if isinstance(batch, StagingError) or batch.pending_reports()
        }
        return [batch_id for batch_id, is_final in entries.items() if is_final or batch_id in pending]

    def pending_reports(self) -> Iterator[PendingReport]:
        """Yield pending reports, oldest batch first: the frauds of committed partitions that are not reported yet.

        A batch has several if an attempt to mail began before further partitions were committed.
        """
        for batch_id in self.pending_batches():
            # Read again, because another task may have mailed it in the meantime.
            batch = self._load_batch(batch_id)
            if isinstance(batch, StagingError):
                continue
            for partitions in (pending := batch.pending_reports()):
                frauds = StagedFrauds(self._storage, batch.manifest.topic, partitions)
                yield PendingReport(batch_id, batch.facts(partitions, self._output_topic), frauds)
            if not pending:
                # The task that recorded the delivery may have died before it finished the report.
                self._finish_report(batch)

    def unreadable(self) -> dict[str, str]:
        """Return the batches that cannot be read, with the reason and what to do.

        An entry stays until a person decides, because a fraud may be among the committed payments. `plan` closes it
        only if no trace of a commit, and neither manifest nor claim, is left.
        """
        return {
            batch_id: f"{error}. Payments that it committed are safe, with batch_id={batch_id} in their headers. "
            f"Restore the file, or give up the report: delete {self._folder}/{batch_id}* in {self._storage.url}"
            for batch_id, error in self._load_batches(self.entries())
            if isinstance(error, StagingError)
        }

    def begin_report(self, report: PendingReport) -> bool:
        """Record that the report is about to be mailed, and return True. If it must not be mailed, return False.

        It must not if one of its partitions was reported meanwhile, or if an attempt has begun to mail a different set
        of partitions that overlaps its own. Raise StagingError if nothing can be recorded: then, too, it must not be
        mailed.
        """
        batch, partitions = self._require_batch(report.key), partitions_of(report)
        if not batch.reports.may_send(partitions):
            return False
        write_mark(self._storage, batch.manifest.folder, partitions, datetime.now(UTC))
        return True

    def record_delivery(self, report: PendingReport, delivery: ReportDelivery) -> None:
        """Record that a server has accepted the report.

        Call it first after acceptance: without the record the report is mailed again.
        """
        write_mark(self._storage, folder_of(report.key), partitions_of(report), delivery.at, delivery)
        self._finish_report(self._require_batch(report.key))

    def _finish_report(self, batch: OutboxBatch) -> None:
        """Write the batch record after a delivery, and close the entry if nothing more is to be done."""
        batch_id = batch.manifest.batch_id
        if not self._write_record(batch) or batch.pending_reports():
            return
        if self._list_entries().get(batch_id) or batch.all_committed:
            self.close_entry(batch_id)

    def _write_record(self, batch: OutboxBatch) -> bool:
        """Write the batch record if the batch has committed anything.

        Return False if it cannot be written: that must not stop scoring.
        """
        try:
            if batch.committed:
                deliveries = batch.reports.deliveries
                write_record(self._storage, batch.manifest, batch.scored, batch.committed, deliveries)
        except (StagingError, msgspec.MsgspecError, TypeError) as error:
            log.error("batch %s: its batch record for the ledger cannot be written: %s", batch.manifest.batch_id, error)
            return False
        return True

    def _load_batches(self, batch_ids: list[str]) -> Iterator[tuple[str, OutboxBatch | StagingError]]:
        """Read batches at the same time: each takes some requests to S3, and failing runs may leave thousands."""
        with ThreadPoolExecutor(_READ_THREADS) as threads:
            yield from zip(batch_ids, threads.map(self._load_batch, batch_ids), strict=True)

    def _load_batch(self, batch_id: str) -> OutboxBatch | StagingError:
        """Return the error if the batch cannot be read, because it must not stop the other batches."""
        try:
            return OutboxBatch.load(self._storage, batch_id)
        except StagingError as error:
            log.error("batch %s: whether a report is pending is unknown: %s", batch_id, error)
            return error

    def _require_batch(self, batch_id: str) -> OutboxBatch:
        batch = self._load_batch(batch_id)
        if isinstance(batch, StagingError):
            raise batch
        return batch


def record_committed_batches(cluster: Cluster, settings: Settings, outbox: Outbox) -> None:
    """Write the commit marks that the group's offsets show. If the broker does not answer, only log that."""
    try:
        topic = cluster.describe_topic(settings.input_topic)
        with ConsumerGroup.open(cluster, settings.group, topic) as group:
            outbox.record_commits(group.committed_offsets)
    except ClusterError as error:
        log.warning("commits that are not recorded yet stay unknown until the next run: %s", error)
