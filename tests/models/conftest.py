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
    """Return the folder of a saved model of the seed project's kind (see `zoo.seed_pipeline`)."""
    return save_seed_model(tmp_path_factory.mktemp("seed") / "m")


class Lab:
    """Create experiments, runs and models in a real MLflow, as users leave them there."""

    def __init__(self, files: Path) -> None:
        self.client = MlflowClient()
        self.files = files
        self._start = itertools.count(1_700_000_000_000, 1000)

    def experiment(self) -> str:
        """Create an experiment and return its name."""
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
        """Create a run and return its id.

        `model` is "logged" for a logged model of MLflow 3, "artifacts" for a model among the run's artifacts, as
        earlier versions store it, or None for a run without a model. `start` is in milliseconds since 1970.
        """
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
        """Create a logged model of MLflow 3 and return its URI."""
        model_id = self.client.create_logged_model(experiment_id, name, run_id).model_id
        self.client.log_model_artifacts(model_id, str(files or self.files))
        self.client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        return f"models:/{model_id}"


@pytest.fixture
def lab(service_environment: dict[str, str], seed_folder: Path, tmp_path: Path) -> Lab:
    """Return a lab whose models have only small files, which are all that is read before a model is downloaded."""
    small = tmp_path / "small"
    small.mkdir()
    for name in ("MLmodel", "requirements.txt"):
        (small / name).write_bytes((seed_folder / name).read_bytes())
    return Lab(small)


@pytest.fixture
def registered(lab: Lab) -> Iterator[Callable[..., str]]:
    """Yield a function that registers a run's model, under a new name if none is given, and returns the name."""
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
