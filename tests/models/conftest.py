from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from tests.models.zoo import save_seed_model


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a model in the seed project's form."""
    return save_seed_model(tmp_path_factory.mktemp("seed") / "m")


class Lab:
    """Makes experiments, runs and models in a real MLflow, as people leave them behind."""

    def __init__(self, files: Path) -> None:
        self.client = MlflowClient()
        self.files = files
        self._start = itertools.count(1_700_000_000_000, 1000)

    def experiment(self) -> str:
        """Its name."""
        name = f"payments {uuid.uuid4().hex}"
        self.client.create_experiment(name)
        return name

    def run(
        self,
        experiment: str,
        *,
        model: str | None = "logged",
        status: str = "FINISHED",
        files: Path | None = None,
        artifact: str = "model",
        start: int | None = None,
    ) -> str:
        """A run's id. `model`: "logged" as MLflow 3 does, "artifacts" as earlier ones did, None for none."""
        experiment_id = self.client.get_experiment_by_name(experiment).experiment_id
        run_id = self.client.create_run(experiment_id, start_time=start or next(self._start)).info.run_id
        if model == "artifacts":
            self.client.log_artifacts(run_id, str(files or self.files), artifact)
        elif model == "logged":
            self.log(experiment_id, run_id, artifact, files)
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def log(self, experiment_id: str, run_id: str, name: str = "model", files: Path | None = None) -> str:
        """The address of a model that MLflow 3 knows."""
        made = self.client.create_logged_model(experiment_id, name, run_id)
        self.client.log_model_artifacts(made.model_id, str(files or self.files))
        self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
        return f"models:/{made.model_id}"


@pytest.fixture
def lab(service_environment: dict[str, str], seed_folder: Path, tmp_path: Path) -> Lab:
    """Its models are their small files only, which is all that is looked at before a model is fetched."""
    small = tmp_path / "small"
    small.mkdir()
    for name in ("MLmodel", "requirements.txt"):
        (small / name).write_bytes((seed_folder / name).read_bytes())
    return Lab(small)


@pytest.fixture
def registered(lab: Lab) -> Iterator[Callable[..., str]]:
    """Registers a run's model under a new name."""
    names = []

    def register(run_id: str, source: str, name: str | None = None) -> str:
        if name is None:
            name = f"fraud {uuid.uuid4().hex}"
            lab.client.create_registered_model(name)
            names.append(name)
        model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else None
        lab.client.create_model_version(name, source, run_id, model_id=model_id)
        return name

    yield register
    for name in names:
        lab.client.delete_registered_model(name)
