"""Query MLflow for experiments, runs, models and files."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import SettingError
from include.models.artifact_uri import ArtifactUris, cleaned
from include.models.logged_models import LoggedModels
from include.models.mlflow_errors import NOT_THERE, translate_errors
from include.models.mlflow_server import Server
from include.models.tracking_uri import TRACKING, registry_uri, tracking_uri, without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

log = logging.getLogger(__name__)

# MLflow's own defaults keep a task waiting for many minutes on a server that is down.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_MAX_ATTEMPTS": "2",
}
# The server sends a file only once it has fetched the whole of it from its own artifact store.
_DOWNLOAD_TIMEOUT = "120"
# The first page of runs is small, for it mostly suffices; the others are as large as servers of all ages give.
_PAGE, _LARGE_PAGE = 50, 1_000
MODEL_NAME = "model"
PARENT_TAG = "mlflow.parentRunId"
_NO_PARENT = f" AND tags.`{PARENT_TAG}` IS NULL"


class ModelStore:
    """Nothing is asked before the first question. Raises SettingError where no MLflow is set."""

    def __init__(self) -> None:
        self.uri = tracking_uri()
        self.shown_uri = without_credentials(self.uri)
        registry = registry_uri()
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(self.uri, registry)
        except MlflowException as error:
            raise SettingError(f"{TRACKING}={self.shown_uri}: {cleaned(str(error), self.uri)}") from error
        self.server = Server(self._client)
        self.logged_models = LoggedModels(self._client, self.uri, self.server)
        self._places = ArtifactUris(self._client, self.uri, self.logged_models)
        self._filters_children = True

    def experiments(self) -> Iterator[Experiment]:
        """Those not deleted, the newest (by creation time) first."""
        token = None
        while True:
            with self._asking():
                page = self._client.search_experiments(
                    order_by=["creation_time DESC"], max_results=_PAGE, page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return

    def experiment(self, name: str) -> Experiment | None:
        with self._asking():
            return self._client.get_experiment_by_name(name)

    def finished_runs(self, experiment_id: str, where: str = "") -> Iterator[tuple[list[Run], bool]]:
        """Yield pages of those that are neither deleted nor another run's child, the newest (by start time) first, and
        whether the page is the last."""
        token, size = None, _PAGE
        while True:
            with self._asking():
                page = self._page_of_runs(experiment_id, f"attributes.status = 'FINISHED'{where}", size, token)
            token, size = page.token, _LARGE_PAGE
            yield [run for run in page if PARENT_TAG not in run.data.tags], not token
            if not token:
                return

    def _page_of_runs(self, experiment_id: str, where: str, size: int, token: str | None) -> Any:
        from mlflow.exceptions import MlflowException

        def search(where: str) -> Any:
            return self._client.search_runs(
                [experiment_id],
                filter_string=where,
                order_by=["attributes.start_time DESC"],
                max_results=size,
                page_token=token,
            )

        if self._filters_children:
            try:
                return search(where + _NO_PARENT)
            except MlflowException as error:
                # Servers know IS NULL since 3.x; with others, children fill the pages.
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                    raise
            page = search(where)
            self._filters_children = False
            return page
        return search(where)

    def run(self, run_id: str) -> Run | None:
        with self._asking():
            return self._or_none(lambda: self._client.get_run(run_id))  # type: ignore[no-any-return]

    def experiment_of(self, run: Run) -> Experiment:
        with self._asking():
            return self._client.get_experiment(run.info.experiment_id)

    def model_of(self, run: Run, name: str = MODEL_NAME) -> str | None:
        """Return where the run's model of that name lies: as MLflow 3 keeps it, or among the run's artifacts. Raise
        UntrustedModelError if the artifacts are outside the trusted locations; they are not searched then."""
        where = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
        for model in self.logged_models.search(run.info.experiment_id, where):
            return f"models:/{model.model_id}"
        return self.model_among_artifacts(run, name)

    def model_among_artifacts(self, run: Run, name: str = MODEL_NAME) -> str | None:
        if any(path == f"{name}/MLmodel" for path in self.artifacts(run, name)):
            return f"{run.info.artifact_uri}/{name}"
        return None

    def artifacts(self, run: Run, folder: str | None = None) -> list[str]:
        """Return the paths in a folder of the run's artifacts. Raise UntrustedModelError as `model_of`."""
        # Past the client, which asks the server for logged models here (3.17), and for the run once more.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._asking():
            self._places.check(f"the model of run {run.info.run_id}", run.info.artifact_uri)
            repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
            return [str(artifact.path) for artifact in repository.list_artifacts(folder)]

    def registered(self, name: str) -> RegisteredModel | None:
        with self._asking():
            return self._or_none(lambda: self._client.get_registered_model(name))  # type: ignore[no-any-return]

    def version(self, name: str, version: str) -> ModelVersion | None:
        with self._asking():
            return self._or_none(lambda: self._client.get_model_version(name, version))  # type: ignore[no-any-return]

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        with self._asking():
            return self._or_none(lambda: self._client.get_model_version_by_alias(name, alias))  # type: ignore[no-any-return]

    def versions_of(self, run_id: str) -> list[ModelVersion]:
        with self._asking():
            return list(self._or_none(lambda: self._client.search_model_versions(f"run_id = '{run_id}'")) or ())

    def text(self, model_uri: str, name: str) -> str | None:
        """One small file of a model; None where the model has no such file."""
        with tempfile.TemporaryDirectory() as folder, self._asking():
            from mlflow.exceptions import MlflowException

            try:
                return Path(self._download(f"{self._places.of(model_uri)}/{name}", folder)).read_text()
            except (MlflowException, OSError) as error:
                if self._is_listed(model_uri, name):
                    raise
                log.debug("%s has no %s: %s", model_uri, name, type(error).__name__)
                return None

    def download(self, model_uri: str, folder: Path) -> None:
        """All of a model's files, into a folder that exists."""
        with self._asking(), _environment("MLFLOW_HTTP_REQUEST_TIMEOUT", _PATIENCE, _DOWNLOAD_TIMEOUT):
            self._download(self._places.of(model_uri), str(folder))

    def _download(self, uri: str, folder: str) -> str:
        from mlflow.artifacts import download_artifacts

        return download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri)

    def _is_listed(self, model_uri: str, name: str) -> bool:
        from mlflow.artifacts import list_artifacts

        listed = list_artifacts(artifact_uri=self._places.of(model_uri), tracking_uri=self.uri)
        return any(artifact.path.rsplit("/", 1)[-1] == name for artifact in listed)

    def run_page(self, run: Run) -> str:
        if not self.uri.startswith(("http://", "https://")):
            return ""
        return f"{self.shown_uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    def _or_none(self, question: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return question()
        except MlflowException as error:
            if error.error_code in NOT_THERE:
                return None
            raise

    def _asking(self) -> AbstractContextManager[None]:
        return translate_errors(self.uri, self.server)


@contextmanager
def _environment(name: str, defaults: dict[str, str], value: str) -> Iterator[None]:
    """MLflow reads its timeouts from the environment only. What a person set there stays."""
    before = os.environ.get(name)
    if before != defaults[name]:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ[name] = before
