from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fraud_scoring.held_model import mention_hold
from include.batch import chunks
from include.batch import predict as step
from include.batch.manifest import Manifest, PartitionBatch
from include.errors import ModelInputError
from include.models.selection import HOLD_VARIABLE, Hold
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
    values = {"run_id": "r", "run_url": "u", "group": "g", "topic": "topic", "topic_id": "id", "drained_at": "now"}
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


def test_held_model_that_requires_a_missing_column_is_refused_with_the_way_to_end_the_hold(
    folder: Storage, staged: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only predict knows the columns of the payments, so a run with Keep may hold a model that predict refuses."""
    run = run_of()
    hold = Hold(run.run_id, "previous", None, "alice", "2026-01-01T00:00:00+00:00")
    monkeypatch.setenv(f"AIRFLOW_VAR_{HOLD_VARIABLE.upper()}", hold.to_json())
    (tmp_path / "MLmodel").write_text(mlmodel("device"))
    monkeypatch.setattr(step, "_load", lambda settings, run: SimpleNamespace(folder=tmp_path))
    manifest = staged("20260101T000000Z-aaaaaa", {0: 1}, columns=("amt",))
    before = folder.list(manifest.folder)
    words = rf"payments do not have: device; .*It is held \({HOLD_VARIABLE}\); to end the hold, trigger a run with"
    with pytest.raises(ModelInputError, match=words), mention_hold(run):
        step.predict(Settings(), folder, manifest, run)
    assert folder.list(manifest.folder) == before


def test_error_of_a_model_that_is_not_held_does_not_mention_the_hold(monkeypatch: pytest.MonkeyPatch):
    hold = Hold("1" * 32, "previous", None, "alice", "2026-01-01T00:00:00+00:00")
    monkeypatch.setenv(f"AIRFLOW_VAR_{HOLD_VARIABLE.upper()}", hold.to_json())
    with pytest.raises(ModelInputError, match=r"^refused$"), mention_hold(run_of()):
        raise ModelInputError("refused")
