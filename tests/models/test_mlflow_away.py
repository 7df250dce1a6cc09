"""An MLflow where nothing answers, for many runs: the staging area stays small, and the next run publishes it all."""

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
from tests.integration.test_protocol import committed_offsets, scored, send
from tests.integration.test_takeover import size, staged
from tests.models.conftest import Lab
from tests.models.model_cases import silently
from tests.models.test_whole_run import message
from tests.models.zoo import payment
from tests.support.scoring import Scoring
from tests.support.small_disk import small_disk

Make = Callable[..., Scoring]
COUNT = 500


@pytest.fixture
def experiment(lab: Lab, seed_folder: Path) -> str:
    """With a model that is small, and can be asked."""
    name = lab.experiment()
    lab.run(name, files=seed_folder)
    return name


def run(here: Scoring, experiment: str) -> Manifest:
    manifest = here.drain()
    model = resolve("latest", experiment=experiment, chosen_by="default")
    silently(lambda: predict(here.settings, here.storage, manifest, model))
    here.publish(manifest)
    return manifest


def messages() -> list[bytes]:
    """Payments that do not grow much smaller when they are packed."""
    return [message(payment(amt=float(number), merchant=os.urandom(150).hex())) for number in range(COUNT)]


def turn_mlflow_away(patch: pytest.MonkeyPatch) -> None:
    """A port where nothing answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def check_next_run_publishes_all(here: Scoring, experiment: str) -> None:
    batch = run(here, experiment)
    assert scored(here) == sorted(f"0/{offset}" for offset in range(COUNT))
    assert committed_offsets(here) == {0: COUNT}
    assert not here.drain().partitions
    assert {report.key for report in here.outbox.pending_reports()} <= {batch.batch_id}
    assert here.outbox.unreadable() == {}


@pytest.mark.parametrize("runs", [6, pytest.param(100, marks=pytest.mark.fault)])
def test_mlflow_that_is_away_leaves_three_batches_and_the_next_run_publishes_all(
    scoring: Make, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    here = scoring(1, model_cache=tmp_path / "cache")
    send(here, *messages())
    sizes = []
    with monkeypatch.context() as patch:
        turn_mlflow_away(patch)
        for _ in range(runs):
            with pytest.raises(ModelStoreError):
                run(here, experiment)
            sizes.append(size(here))
            assert len(staged(here)) <= 3
    assert max(sizes) <= 3 * sizes[0]
    check_next_run_publishes_all(here, experiment)


def test_a_disk_that_is_full_while_mlflow_is_away_takes_the_newest_run(
    scoring: Make, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has the room that the run before the last one leaves."""
    with small_disk(tmp_path / "disk", 2048) as disk:
        here = scoring(1, model_cache=tmp_path / "cache", staging_url=str(disk.folder))
        send(here, *messages())
        with monkeypatch.context() as patch:
            turn_mlflow_away(patch)
            for _ in range(2):
                with pytest.raises(ModelStoreError):
                    run(here, experiment)
            one = size(here) // 2
            with disk.full():
                for _ in range(6):
                    with pytest.raises(ModelStoreError):
                        run(here, experiment)
        # What predictions and notes take, and no batch.
        with disk.full(free_pages=16):
            with pytest.raises(StagingError, match="the disk is full"):
                here.storage.write("more", b"x" * one)
            check_next_run_publishes_all(here, experiment)
