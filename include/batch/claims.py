"""Decide which batches may still be published: each run ends the claims of older runs and removes their staged copies.

While nothing is committed, each run stages the same payments again. Two files make a claim:

- `claims/<group>/<topic>/<DAG key>/<batch>` lists the batch, from before its first staged file until its copies are
  removed. The DAG key is a digest of FRAUD_INSTALLATION and the DAG's address in the UI: older runs of that DAG have
  ended; runs of another Airflow may still be at work.
- `claim` in the batch's folder allows its publication. It is deleted first; then the producers of a batch with an
  outbox entry are fenced; then the committed offsets are read; then files are removed. `publish` opens its outbox
  entry, fences, and then reads the claim. So either `publish` sees that the claim has ended, or it is fenced and its
  commits are seen: a pending report keeps its files.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from include.batch.manifest import Manifest, folder_of
from include.batch.outbox import Outbox
from include.errors import StagingError
from include.kafka.committed_offsets import CommittedOffset
from include.storage.staging import Storage

log = logging.getLogger(__name__)

FOLDER = "claims"
# The newest older batch keeps its claim, so that a task of its run can be cleared.
_KEPT = 1
_ATTEMPT = re.compile(r"[0-9a-f]{8}")


def is_claimed(storage: Storage, manifest: Manifest) -> bool:
    """Return whether the batch may be published. Ask after the fence, and after the outbox entry is open.

    A batch of a version without claims may: no run ends what it does not list, and the committed offsets decide.
    """
    return not manifest.has_claim or storage.read(f"{manifest.folder}/claim") is not None


class Claims:
    """List this DAG's batches in the staging area, end their claims and remove their copies."""

    def __init__(self, storage: Storage, group: str, topic: str, run_url: str, installation: str = "") -> None:
        self._storage = storage
        dag_url = run_url.rpartition("/runs/")[0]
        dag_key = hashlib.sha256(f"{installation} {dag_url}".strip().encode()).hexdigest()[:8]
        self._folder = f"{FOLDER}/{quote(group, safe='')}/{topic}/{dag_key}"

    def save(self, manifest: Manifest) -> None:
        """Save the manifest with its claim, listed first: files that are not listed stay until the retention time."""
        self._storage.write(f"{self._folder}/{manifest.batch_id}", b"")
        manifest.save(self._storage)
        self._storage.write(f"{manifest.folder}/claim", b"")

    def end_older(self, outbox: Outbox, fence: Callable[[set[int]], set[int]]) -> list[str]:
        """End the claims of all batches but the newest, and return the ids of those that nobody can commit any more.

        `fence` fences the producers of partitions, and returns the partitions where it could not. May be repeated.
        """
        ended = self._storage.list(self._folder)[:-_KEPT]
        for batch_id in ended:
            self._storage.delete(f"{folder_of(batch_id)}/claim")
        in_doubt = {
            batch_id: {part.partition for part in manifest.partitions}
            for batch_id in set(ended) & set(outbox.open_entries())
            if (manifest := self._manifest(batch_id)) is not None
        }
        unfenced = fence(set().union(*in_doubt.values()))
        waiting = {batch_id for batch_id, partitions in in_doubt.items() if partitions & unfenced}
        if waiting:
            log.warning(
                "batches %s keep their staged files: producers of partitions %s could not be fenced. Nothing needs to "
                "be done: the next run tries again",
                sorted(waiting),
                sorted(unfenced),
            )
        return [batch_id for batch_id in ended if batch_id not in waiting]

    def remove(self, ended: Collection[str], outbox: Outbox, committed: Mapping[int, CommittedOffset]) -> None:
        """Remove the staged copies of partitions that these batches have not committed, and never will.

        `committed`: the offsets of all partitions, read after the fence.
        """
        entries = outbox.entries() if ended else []
        for batch_id in ended:
            folder = folder_of(batch_id)
            names = self._storage.list(folder)
            noted = {int(name.removeprefix("committed-")) for name in names if name.startswith("committed-")}
            if noted:
                self._remove_chunks(batch_id, names, noted)
            elif batch_id in entries:
                # Opened by its publisher just now, or unreadable: the next run ends it again.
                continue
            else:
                self._storage.delete(folder)
                log.info(
                    "batch %s: not published; a newer run has taken over its payments, staged files removed", batch_id
                )
            self._storage.delete(f"{self._folder}/{batch_id}")
        self._close_orphans(outbox, {at.batch for at in committed.values()})

    def _close_orphans(self, outbox: Outbox, named: Collection[str | None]) -> None:
        """Close the entries of removed batches: a publisher may open one after its files are removed, and die.

        `named`: the batches that the committed offsets name. Such a one has lost its files otherwise.
        """
        for batch_id in outbox.open_entries():
            names = self._storage.list(folder_of(batch_id))
            if any(name in ("manifest.json", "claim") or name.startswith("committed-") for name in names):
                continue
            if batch_id in named:
                # A person must decide, also when another batch has committed over it.
                outbox.keep_entry(batch_id)
            else:
                log.info("batch %s has committed nothing and its files are removed: no report is owed", batch_id)
                outbox.close_entry(batch_id)

    def _remove_chunks(self, batch_id: str, names: list[str], committed: set[int]) -> None:
        manifest = self._manifest(batch_id)
        if manifest is None or {part.partition for part in manifest.partitions} <= committed:
            return
        for attempt in filter(_ATTEMPT.fullmatch, names):
            for name in self._storage.list(f"{manifest.folder}/{attempt}"):
                # payments-<partition>-<number>.parquet, and predictions-…
                if int(name.split("-")[1]) not in committed:
                    self._storage.delete(f"{manifest.folder}/{attempt}/{name}")

    def _manifest(self, batch_id: str) -> Manifest | None:
        """Return None where it cannot be read: what is staged then stays until the retention time."""
        try:
            return Manifest.load_plan(self._storage, batch_id)
        except StagingError as error:
            log.warning("batch %s keeps its staged files: %s", batch_id, error)
            return None
