"""Decide which batches may still be published: `plan` ends the claims of older batches and removes their staged files.

While nothing is committed, each run stages the same payments again. `plan` ends the claims of all saved batches except
the newest, so that a task of the last run can be cleared. Then it saves a new batch: two batches have a claim.

The claim is the file `claim` in the batch's folder. A second file lists the batch:
`claims/<group>/<topic>/<DAG key>/<batch>`. It exists from before the batch's first staged file until its claim has
ended and `plan` has removed its files, except those that a pending report may need. The DAG key is a digest of
FRAUD_INSTALLATION and the DAG's address in the UI. So `plan` ends claims of its own DAG only: the DAG runs one batch at
a time, and of its older runs only a killed or cleared task may still be at work. Runs of another
Airflow may be at work at the same time, so their claims are left alone.

`plan` ends a claim in this order: it deletes `claim`, fences the producers of a batch with an outbox entry, reads the
committed offsets, and then removes files. `publish` opens its outbox entry, fences the producers, and then reads
`claim`. So either `publish` sees that its claim has ended, or it is fenced and its commits are seen: then the files of
its pending report stay.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from include.batch.batch_id import folder_of
from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.batch.outbox_batch import committed_partitions
from include.errors import StagingError
from include.kafka.committed_offsets import CommittedOffset
from include.storage.staging import Storage

log = logging.getLogger(__name__)

CLAIMS_FOLDER = "claims"
# How many of the listed batches keep their claim. The batch that is being planned is not listed yet.
_KEPT_CLAIMS = 1
_ATTEMPT_FOLDER = re.compile(r"[0-9a-f]{8}")


def is_claimed(storage: Storage, manifest: Manifest) -> bool:
    """Return whether the batch may be published.

    `publish` must call it after it has opened the outbox entry and fenced the producers: if the claim ends later,
    `plan` finds the entry and fences the batch. `drain` calls it only to avoid reading in vain.

    A batch of an earlier version has no claim and may be published: it is not listed, so no run removes its files
    before it is old.
    """
    return not manifest.needs_claim or storage.read(f"{manifest.folder}/claim") is not None


class Claims:
    """The claims of one DAG's batches on a topic. Methods raise StagingError if the staging area cannot be used."""

    def __init__(self, storage: Storage, group: str, topic: str, run_url: str, installation: str = "") -> None:
        """`run_url` is the page of any run of the DAG; `installation` tells apart Airflows with the same address."""
        self._storage = storage
        dag_url = run_url.rpartition("/runs/")[0]
        dag_key = hashlib.sha256(f"{installation} {dag_url}".strip().encode()).hexdigest()[:8]
        self._folder = f"{CLAIMS_FOLDER}/{quote(group, safe='')}/{topic}/{dag_key}"

    def save(self, manifest: Manifest) -> None:
        """Save the manifest and its claim. List the batch first: unlisted files would stay for FRAUD_STAGING_HOURS."""
        self._storage.write(f"{self._folder}/{manifest.batch_id}", b"")
        manifest.save(self._storage)
        self._storage.write(f"{manifest.folder}/claim", b"")

    def end_older(self, outbox: Outbox, fence: Callable[[set[int]], set[int]]) -> list[str]:
        """End the claims of all listed batches but the newest. Return the ids of the batches to pass to `remove`.

        Call it before the new batch is saved, and so listed. `fence` fences the producers of partitions, and returns
        the partitions where it failed: their batches are not returned, and the next run ends them again.

        No task can commit a returned batch any more, with one exception: if a batch has an outbox entry and its
        manifest cannot be read, its partitions are unknown, so it is not fenced. `remove` keeps its files.
        """
        ended = self._storage.list(self._folder)[:-_KEPT_CLAIMS]
        for batch_id in ended:
            self._storage.delete(f"{folder_of(batch_id)}/claim")
        publishing = {
            batch_id: {part.partition for part in manifest.partitions}
            for batch_id in set(ended) & set(outbox.open_entries())
            if (manifest := self._load_manifest(batch_id)) is not None
        }
        unfenced = fence(set().union(*publishing.values()))
        postponed = {batch_id for batch_id, partitions in publishing.items() if partitions & unfenced}
        if postponed:
            log.warning(
                "batches %s keep their staged files: producers of partitions %s could not be fenced. Nothing needs to "
                "be done: the next run tries again",
                sorted(postponed),
                sorted(unfenced),
            )
        return [batch_id for batch_id in ended if batch_id not in postponed]

    def remove(self, ended: Collection[str], outbox: Outbox, committed: Mapping[int, CommittedOffset]) -> None:
        """Remove the staged files of partitions that these batches have not committed, and never will.

        `ended` are the ids that `end_older` returned; `committed` has the group's committed offsets of all partitions,
        read after `end_older`. A batch that has an outbox entry but no commit mark keeps its files.
        """
        entries = outbox.entries() if ended else []
        for batch_id in ended:
            folder = folder_of(batch_id)
            names = self._storage.list(folder)
            if partitions := committed_partitions(names):
                self._remove_chunks(batch_id, names, partitions)
            elif batch_id in entries:
                # Its publisher has just opened the entry, or the batch cannot be read: the next run ends it again.
                continue
            else:
                self._storage.delete(folder)
                log.info(
                    "batch %s: not published; a newer run has taken over its payments, staged files removed", batch_id
                )
            self._storage.delete(f"{self._folder}/{batch_id}")
        self._close_orphans(outbox, {offset.batch for offset in committed.values()})

    def _close_orphans(self, outbox: Outbox, committing: Collection[str | None]) -> None:
        """Close the entries of removed batches: a publisher may open one after the files are removed, and die.

        `committing` are the batches that the commit notes name. If one of them has no files, they were lost.
        """
        for batch_id in outbox.open_entries():
            names = self._storage.list(folder_of(batch_id))
            if committed_partitions(names) or {"manifest.json", "claim"}.intersection(names):
                continue
            if batch_id in committing:
                # Its report cannot be built. The entry stays until a person decides, also after other batches' commits.
                outbox.mark_final(batch_id)
            else:
                log.info("batch %s has committed nothing and its files are removed: no report is pending", batch_id)
                outbox.close_entry(batch_id)

    def _remove_chunks(self, batch_id: str, names: list[str], committed: set[int]) -> None:
        """Remove the chunks of the other partitions; the pending report needs those of the committed partitions."""
        manifest = self._load_manifest(batch_id)
        if manifest is None or {part.partition for part in manifest.partitions} <= committed:
            return
        for attempt in filter(_ATTEMPT_FOLDER.fullmatch, names):
            for name in self._storage.list(f"{manifest.folder}/{attempt}"):
                # payments-<partition>-<number>.parquet or predictions-<partition>-<number>.parquet
                if int(name.split("-")[1]) not in committed:
                    self._storage.delete(f"{manifest.folder}/{attempt}/{name}")

    def _load_manifest(self, batch_id: str) -> Manifest | None:
        """Return None if the manifest cannot be read. The batch then keeps its files as long as its outbox entry."""
        try:
            return Manifest.load_plan(self._storage, batch_id)
        except StagingError as error:
            log.warning("batch %s keeps its staged files: %s", batch_id, error)
            return None
