"""Query MLflow for experiments, runs, models and their files."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import SettingError
from include.models.artifact_uri import ArtifactUris, redact
from include.models.logged_models import LoggedModels
from include.models.mlflow_errors import NOT_FOUND_CODES, translate_errors
from include.models.mlflow_server import MlflowServer
from include.models.tracking_uri import TRACKING, registry_uri, tracking_uri, without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

log = logging.getLogger(__name__)

_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
# With MLflow's own defaults a task waits many minutes for a server that is down.
_MLFLOW_TIMEOUTS = {
    _TIMEOUT: "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_MAX_ATTEMPTS": "2",
}
# The server sends a file only after it has fetched the whole file from its own artifact store.
_DOWNLOAD_TIMEOUT = "120"
# The first page of runs is small, because it mostly suffices. The others have the largest size that every server of
# a supported version accepts.
_FIRST_PAGE, _LARGE_PAGE = 50, 1_000
MODEL_NAME = "model"
PARENT_TAG = "mlflow.parentRunId"
_NO_PARENT_FILTER = f" AND tags.`{PARENT_TAG}` IS NULL"


class ModelStore:
    """The MLflow that the environment names. Nothing connects before the first request.

    Raise SettingError if MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI is missing or invalid. The methods raise
    ModelStoreError and the other errors of `translate_errors`.
    """

    def __init__(self) -> None:
        self.uri = tracking_uri()
        self.shown_uri = without_credentials(self.uri)
        registry = registry_uri()
        for name, value in _MLFLOW_TIMEOUTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(self.uri, registry)
        except MlflowException as error:
            raise SettingError(f"{TRACKING}={self.shown_uri}: {redact(str(error), self.uri)}") from error
        self.server = MlflowServer(self._client)
        self.logged_models = LoggedModels(self._client, self.uri, self.server)
        self._artifact_uris = ArtifactUris(self._client, self.uri, self.logged_models)
        self._filters_children = True

    def experiments(self) -> Iterator[Experiment]:
        """Yield the experiments that are not deleted, the newest (by creation time) first."""
        token = None
        while True:
            with self._translate_errors():
                page = self._client.search_experiments(
                    order_by=["creation_time DESC"], max_results=_FIRST_PAGE, page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return

    def experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name, deleted or not, None if there is none."""
        with self._translate_errors():
            return self._client.get_experiment_by_name(name)

    def finished_runs(self, experiment_id: str, where: str = "") -> Iterator[tuple[list[Run], bool]]:
        """Yield at least one page of FINISHED runs, the newest (by start time) first, and whether it is the last page.

        Deleted runs and child runs are left out. `where` is appended to MLflow's filter.
        """
        token, size = None, _FIRST_PAGE
        while True:
            with self._translate_errors():
                page = self._page_of_runs(experiment_id, f"attributes.status = 'FINISHED'{where}", size, token)
            token, size = page.token, _LARGE_PAGE
            yield [run for run in page if PARENT_TAG not in run.data.tags], not token
            if not token:
                return

    def _page_of_runs(self, experiment_id: str, where: str, size: int, token: str | None) -> Any:
        from mlflow.exceptions import MlflowException

        def search(filter_string: str) -> Any:
            return self._client.search_runs(
                [experiment_id],
                filter_string=filter_string,
                order_by=["attributes.start_time DESC"],
                max_results=size,
                page_token=token,
            )

        if self._filters_children:
            try:
                return search(where + _NO_PARENT_FILTER)
            except MlflowException as error:
                # MLflow before 3 rejects IS NULL in a filter: child runs then take up room on the pages.
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                    raise
        page = search(where)
        # If this search fails too, the reason is not IS NULL.
        self._filters_children = False
        return page

    def run(self, run_id: str) -> Run | None:
        """Return the run, deleted or not, None if there is none of that id."""
        with self._translate_errors():
            return self._or_none(lambda: self._client.get_run(run_id))  # type: ignore[no-any-return]

    def experiment_of(self, run: Run) -> Experiment:
        """Return the run's experiment."""
        with self._translate_errors():
            return self._client.get_experiment(run.info.experiment_id)

    def find_model(self, run: Run, name: str = MODEL_NAME) -> str | None:
        """Return the URI of the run's model of that name: a logged model of MLflow 3, else one among its artifacts.

        Return None if the run has no such model. Raise UntrustedModelError, instead of searching the artifacts, if
        they are stored outside the trusted locations.
        """
        where = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
        for model in self.logged_models.search(run.info.experiment_id, where):
            return f"models:/{model.model_id}"
        return self.model_among_artifacts(run, name)

    def model_among_artifacts(self, run: Run, name: str = MODEL_NAME) -> str | None:
        """Return the URI of the model in the folder `name` of the run's artifacts, None if there is none.

        Raise UntrustedModelError as `find_model` does.
        """
        if f"{name}/MLmodel" in self.list_artifacts(run, name):
            return f"{run.info.artifact_uri}/{name}"
        return None

    def list_artifacts(self, run: Run, folder: str | None = None) -> list[str]:
        """Return the paths in a folder of the run's artifacts. Raise UntrustedModelError as `find_model` does."""
        # MLflow's client (3.17) would also request the run's logged models, and the run a second time.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._translate_errors():
            self._artifact_uris.require_trusted(f"the model of run {run.info.run_id}", run.info.artifact_uri)
            repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
            return [str(artifact.path) for artifact in repository.list_artifacts(folder)]

    def registered_model(self, name: str) -> RegisteredModel | None:
        """Return the registered model of that name, None if there is none."""
        with self._translate_errors():
            return self._or_none(lambda: self._client.get_registered_model(name))  # type: ignore[no-any-return]

    def version(self, name: str, version: str) -> ModelVersion | None:
        """Return a version of a registered model, None if there is none of that number."""
        with self._translate_errors():
            return self._or_none(lambda: self._client.get_model_version(name, version))  # type: ignore[no-any-return]

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version of a registered model that has the alias, None if none has it."""
        with self._translate_errors():
            return self._or_none(lambda: self._client.get_model_version_by_alias(name, alias))  # type: ignore[no-any-return]

    def versions_of_run(self, run_id: str) -> list[ModelVersion]:
        """Return the registered versions of the run's models."""
        with self._translate_errors():
            return list(self._or_none(lambda: self._client.search_model_versions(f"run_id = '{run_id}'")) or ())

    def read_text(self, model_uri: str, name: str) -> str | None:
        """Return the text of one of a model's files, None if the model has no such file."""
        with tempfile.TemporaryDirectory() as folder, self._translate_errors():
            from mlflow.exceptions import MlflowException

            try:
                return Path(self._download(f"{self._artifact_uris.resolve(model_uri)}/{name}", folder)).read_text()
            except (MlflowException, OSError) as error:
                if self._is_listed(model_uri, name):
                    raise
                log.debug("%s has no %s: %s", model_uri, name, type(error).__name__)
                return None

    def download(self, model_uri: str, folder: Path) -> None:
        """Download all of a model's files into a folder that exists."""
        with self._translate_errors(), _download_timeout():
            self._download(self._artifact_uris.resolve(model_uri), str(folder))

    def _download(self, uri: str, folder: str) -> str:
        from mlflow.artifacts import download_artifacts

        return download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri)

    def _is_listed(self, model_uri: str, name: str) -> bool:
        from mlflow.artifacts import list_artifacts

        artifacts = list_artifacts(artifact_uri=self._artifact_uris.resolve(model_uri), tracking_uri=self.uri)
        return any(artifact.path.rsplit("/", 1)[-1] == name for artifact in artifacts)

    def run_url(self, run: Run) -> str:
        """Return the address of the run's page, empty if MLflow is not a server."""
        if not self.uri.startswith(("http://", "https://")):
            return ""
        return f"{self.shown_uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    def _or_none(self, request: Callable[[], Any]) -> Any:
        """Return what `request` returns, None if MLflow does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            return request()
        except MlflowException as error:
            if error.error_code in NOT_FOUND_CODES:
                return None
            raise

    def _translate_errors(self) -> AbstractContextManager[None]:
        return translate_errors(self.uri, self.server)


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Give requests the time of a download, unless a user has set a timeout: MLflow reads it from the environment."""
    before = os.environ.get(_TIMEOUT)
    if before != _MLFLOW_TIMEOUTS[_TIMEOUT]:
        yield
        return
    os.environ[_TIMEOUT] = _DOWNLOAD_TIMEOUT
    try:
        yield
    finally:
        os.environ[_TIMEOUT] = before
