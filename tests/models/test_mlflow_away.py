"""Tests with an MLflow that does not answer for many runs: staging stays small, and the next run publishes all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from include.batch.manifest import Manifest
from include.batch.predict import predict
from include.errors import ModelStoreError, StagingError
from include.models.resolve import resolve
from tests.integration.test_protocol import scored, send, stands_at
from tests.integration.test_takeover import size, staged
from tests.models.conftest import Lab
from tests.models.model_cases import without_warnings
from tests.models.test_whole_run import message
from tests.models.zoo import payment
from tests.support.scoring import Scoring
from tests.support.small_disk import small_disk

MakeScoring = Callable[..., Scoring]
COUNT = 500


@pytest.fixture
def experiment(lab: Lab, seed_folder: Path) -> str:
    """Return an experiment with a small model that scores."""
    name = lab.experiment()
    lab.run(name, files=seed_folder)
    return name


def run_batch(here: Scoring, experiment: str) -> Manifest:
    manifest = here.drain()
    model = resolve("latest", experiment=experiment, chosen_by="default")
    without_warnings(lambda: predict(here.settings, here.storage, manifest, model))
    here.publish(manifest)
    return manifest


def messages() -> list[bytes]:
    """Return payments of random text, which compresses badly."""
    return [message(payment(amt=float(number), merchant=os.urandom(150).hex())) for number in range(COUNT)]


def stop_mlflow(patch: pytest.MonkeyPatch) -> None:
    """Set MLflow's address to a port where nothing answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def check_next_run_publishes_all(here: Scoring, experiment: str) -> None:
    batch = run_batch(here, experiment)
    assert scored(here) == sorted(f"0/{offset}" for offset in range(COUNT))
    assert stands_at(here) == {0: COUNT}
    assert not here.drain().partitions
    assert {report.key for report in here.outbox.owed()} <= {batch.batch_id}
    assert here.outbox.unreadable() == {}


@pytest.mark.parametrize("runs", [6, pytest.param(100, marks=pytest.mark.fault)])
def test_without_mlflow_staging_holds_three_batches_and_next_run_publishes_all(
    scoring: MakeScoring, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    here = scoring(1, model_cache=tmp_path / "cache")
    send(here, *messages())
    sizes = []
    with monkeypatch.context() as patch:
        stop_mlflow(patch)
        for _ in range(runs):
            with pytest.raises(ModelStoreError):
                run_batch(here, experiment)
            sizes.append(size(here))
            assert len(staged(here)) <= 3
    assert max(sizes) <= 3 * sizes[0]
    check_next_run_publishes_all(here, experiment)


def test_full_disk_without_mlflow_holds_the_newest_batch(
    scoring: MakeScoring, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has the space that the second last run leaves."""
    with small_disk(tmp_path / "disk", 2048) as disk:
        here = scoring(1, model_cache=tmp_path / "cache", staging_url=str(disk.folder))
        send(here, *messages())
        with monkeypatch.context() as patch:
            stop_mlflow(patch)
            for _ in range(2):
                with pytest.raises(ModelStoreError):
                    run_batch(here, experiment)
            batch_bytes = size(here) // 2
            with disk.full():
                for _ in range(6):
                    with pytest.raises(ModelStoreError):
                        run_batch(here, experiment)
        # Enough space for predictions and commit notes, too little for a batch.
        with disk.full(free_pages=16):
            with pytest.raises(StagingError, match="the disk is full"):
                here.storage.write("more", b"x" * batch_bytes)
            check_next_run_publishes_all(here, experiment)
