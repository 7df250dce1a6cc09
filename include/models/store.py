"""MLflow, by the few questions that are asked of it; its many failures become two of ours."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ModelStoreAccessError, ModelStoreError, SettingError
from include.models.places import Places, cleaned, shown

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
_NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_PAGE = 50


class Store:
    """Nothing is asked before the first question. Raises SettingError where no MLflow is set."""

    def __init__(self) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not self.uri:
            raise SettingError("MLFLOW_TRACKING_URI is not set: give the address of the MLflow that holds the models")
        self.shown_uri = shown(self.uri)
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(self.uri, os.environ.get("MLFLOW_REGISTRY_URI", "").strip() or None)
        except MlflowException as error:
            raise SettingError(f"MLFLOW_TRACKING_URI={self.shown_uri}: {cleaned(str(error), self.uri)}") from error
        self._places = Places(self._client, self.uri)

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

    def finished_runs(self, experiment_id: str) -> Iterator[Run]:
        """Those not deleted, the newest (by start time) first."""
        token = None
        while True:
            with self._asking():
                page = self._client.search_runs(
                    [experiment_id],
                    filter_string="attributes.status = 'FINISHED'",
                    order_by=["attributes.start_time DESC"],
                    max_results=_PAGE,
                    page_token=token,
                )
            yield from page
            token = page.token
            if not token:
                return

    def run(self, run_id: str) -> Run | None:
        with self._asking():
            return self._or_none(lambda: self._client.get_run(run_id))  # type: ignore[no-any-return]

    def experiment_of(self, run: Run) -> Experiment:
        with self._asking():
            return self._client.get_experiment(run.info.experiment_id)

    def model_of(self, run: Run) -> str | None:
        """Where the run's model named `model` lies: as MLflow 3 keeps it, or among the run's artifacts. Raises
        UntrustedModelError where those lie elsewhere than models are taken from: then nobody looks for one."""
        with self._asking():
            logged = self._or_none(
                lambda: self._client.search_logged_models(
                    experiment_ids=[run.info.experiment_id],
                    filter_string=f"name = 'model' AND source_run_id = '{run.info.run_id}'",
                )
            )
            for model in logged or ():
                if str(model.status) == "READY":
                    return f"models:/{model.model_id}"
            self._places.check(f"the model of run {run.info.run_id}", run.info.artifact_uri)
            artifacts = self._client.list_artifacts(run.info.run_id, "model")
        if any(artifact.path == "model/MLmodel" for artifact in artifacts):
            return f"{run.info.artifact_uri}/model"
        return None

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

    def source_run(self, model_uri: str) -> str | None:
        """The run that a logged model (models:/m-…) came from."""
        with self._asking():
            model = self._or_none(lambda: self._client.get_logged_model(model_uri.removeprefix("models:/")))
        return model.source_run_id if model is not None else None

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
        return f"{self.shown_uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    def _or_none(self, question: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return question()
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                return None
            raise

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever goes wrong between here and MLflow or its artifact store may go right on the next try."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, RequestException, BotoCoreError, ClientError, Boto3Error, OSError) as error:
            text = cleaned(str(error), self.uri)
            if _refuses_keys(error):
                raise ModelStoreAccessError(
                    f"the artifact store of MLflow at {self.shown_uri} refuses the keys in the connection aws_default: "
                    f"{text}"
                ) from error
            who, mend = f"MLflow at {self.shown_uri}", "is it up, and MLFLOW_TRACKING_URI right?"
            if any(isinstance(one, (BotoCoreError, ClientError, Boto3Error)) for one in _causes(error)):
                who, mend = (
                    f"the artifact store of {who}",
                    "is it up, and the address in the connection aws_default right?",
                )
            raise ModelStoreError(f"{who} did not give what was asked: {text}: {mend}") from error


def is_full_disk(error: BaseException) -> bool:
    """MLflow may have wrapped it, or only quoted it."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL_DISK) or "No space left on device" in str(one)
        for one in _causes(error)
    )


def _refuses_keys(error: BaseException) -> bool:
    from botocore.exceptions import ClientError

    return any(isinstance(one, ClientError) and one.response["Error"]["Code"] in _WRONG_KEYS for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
