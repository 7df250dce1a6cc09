"""Drain leaves a batch alone that is published already, or that a newer run has taken over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from include.batch.drain import drain
from include.batch.manifest import Drained, Manifest
from include.batch.scored_batch import ScoredBatch
from include.errors import BatchSupersededError
from include.settings import Settings
from include.storage.staging import Storage

BATCH = "20260101T000000Z-aaaaaa"
# A refused drain asks no broker.
NO_CLUSTER: Any = None


def test_batch_whose_publishing_has_begun_is_not_drained_again(folder: Storage, staged: Callable[..., Manifest]):
    manifest = staged(BATCH, {0: 1}, shards=((0,),), needs_claim=True)
    drained = Drained(manifest.partitions, columns=("n",), seconds=1.0)
    manifest.save_drained(folder, 0, drained)
    ScoredBatch.begin_publishing(folder, manifest.folder)
    before = folder.list(manifest.folder)
    assert drain(NO_CLUSTER, Settings(), folder, manifest) == drained
    assert folder.list(manifest.folder) == before


def test_batch_without_its_claim_is_not_drained(folder: Storage, staged: Callable[..., Manifest]):
    manifest = staged(BATCH, {0: 1}, shards=((0,),), needs_claim=True)
    with pytest.raises(BatchSupersededError, match=rf"^batch {BATCH} of topic is not drained: newer runs have taken"):
        drain(NO_CLUSTER, Settings(), folder, manifest)
    assert "drained-0.json" not in folder.list(manifest.folder)
