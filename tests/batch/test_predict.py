from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from include.batch import chunks
from include.batch import predict as step
from include.batch.manifest import Manifest, PartitionBatch
from include.errors import ModelInputError
from include.settings import Settings
from include.storage.staging import Storage
from tests.models.test_description import mlmodel
from tests.models.zoo import run_of

ROWS, CHUNKS = 10, 12


class WatchedStorage(Storage):
    """Real storage that counts the chunks that were read and have no predictions yet: `held`, and its maximum."""

    held = most_held = 0

    def read(self, path: str) -> bytes | None:
        if "/payments-" in path:
            self.held += 1
            self.most_held = max(self.held, self.most_held)
        return super().read(path)

    def write(self, path: str, data: object) -> None:
        if "/predictions-" in path:
            self.held -= 1
        super().write(path, data)


def test_chunks_with_only_dead_letters_count_as_buffered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage = WatchedStorage.open(str(tmp_path / "staging"))
    assert isinstance(storage, WatchedStorage)
    folder = "batches/20260101T00/20260101T000000Z-aaaaaa/an-attempt"
    part = PartitionBatch(0, 0, ROWS * CHUNKS, 0, CHUNKS, dead_letters=ROWS * CHUNKS, staged=folder)
    values = {"run_id": "r", "run_url": "u", "group": "g", "topic": "topic", "topic_id": "id", "planned_at": "now"}
    manifest = Manifest(batch_id="20260101T000000Z-aaaaaa", partitions=(part,), **values)
    manifest.save(storage)
    for number in range(CHUNKS):
        offsets = list(range(number * ROWS, (number + 1) * ROWS))
        nothing = [None] * ROWS
        columns = chunks.Columns(
            offsets, nothing, nothing, [b"?"] * ROWS, nothing, nothing, nothing, ["not_json: no"] * ROWS
        )
        chunks.write_payments(storage, folder, 0, number, columns)
    monkeypatch.setattr("include.batch.chunk_groups._GROUP_ROWS", 3 * ROWS)
    scored = step.predict(Settings(), storage, manifest, run_of())
    assert (scored.scored, scored.dead_letters, scored.reasons) == (0, ROWS * CHUNKS, {"not_json": ROWS * CHUNKS})
    assert (storage.held, storage.most_held) == (0, 3)


def test_model_that_requires_a_missing_column_is_refused_before_any_payment_is_scored(
    folder: Storage, staged: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "MLmodel").write_text(mlmodel("device"))
    monkeypatch.setattr(step, "_load", lambda settings, run: SimpleNamespace(folder=tmp_path))
    manifest = staged("20260101T000000Z-aaaaaa", {0: 1}, columns=("amt",))
    before = folder.list(manifest.folder)
    with pytest.raises(ModelInputError, match="payments do not have: device"):
        step.predict(Settings(), folder, manifest, run_of())
    assert folder.list(manifest.folder) == before
