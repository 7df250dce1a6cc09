"""MLflow, by the few questions that are asked of it; its many failures become two of ours."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from include.errors import ModelStoreAccessError, ModelStoreError, SettingError, UntrustedModelError

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
# Where MLflow may say that a model's files lie, besides MLflow itself. No address that names its own host (http, abfss,
# r2, hdfs): whoever can write to MLflow could have the worker send its passwords to a server of theirs.
_OBJECT_STORES = ("s3", "gs", "wasbs")
_LOGGED = re.compile(r"models:/(m-[^/@]+)")
_VERSION = re.compile(r"models:/([^/@]+)/([0-9]+)")
_OF_RUN = re.compile(r"runs:/([^/]+)/(.+)")
# A copied version names the one that it was copied from.
_MOST_STEPS = 5


class Store:
    """Nothing is asked before the first question. Raises SettingError where no MLflow is set."""

    def __init__(self) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not self.uri:
            raise SettingError("MLFLOW_TRACKING_URI is not set: give the address of the MLflow that holds the models")
        self._places: dict[str, str] = {}
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(self.uri, os.environ.get("MLFLOW_REGISTRY_URI", "").strip() or None)
        except MlflowException as error:
            raise SettingError(f"MLFLOW_TRACKING_URI={self.shown_uri}: {self._clean(str(error))}") from error

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
            self._check_place(f"the model of run {run.info.run_id}", run.info.artifact_uri)
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
                return Path(self._download(f"{self._place(model_uri)}/{name}", folder)).read_text()
            except (MlflowException, OSError) as error:
                if self._is_listed(model_uri, name):
                    raise
                log.debug("%s has no %s: %s", model_uri, name, type(error).__name__)
                return None

    def download(self, model_uri: str, folder: Path) -> None:
        """All of a model's files, into a folder that exists."""
        with self._asking(), _environment("MLFLOW_HTTP_REQUEST_TIMEOUT", _PATIENCE, _DOWNLOAD_TIMEOUT):
            self._download(self._place(model_uri), str(folder))

    def _download(self, uri: str, folder: str) -> str:
        from mlflow.artifacts import download_artifacts

        return download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri)

    def _place(self, model_uri: str) -> str:
        """Where the files lie in the end. MLflow's own downloads would follow it anywhere."""
        if model_uri not in self._places:
            place = model_uri
            for _ in range(_MOST_STEPS):
                place = self._further(place) or place
            self._check_place(f"the model {model_uri}", place)
            self._places[model_uri] = place
        return self._places[model_uri]

    def _further(self, uri: str) -> str | None:
        if found := _LOGGED.fullmatch(uri):
            return str(self._client.get_logged_model(found[1]).artifact_location)
        if found := _VERSION.fullmatch(uri):
            return str(self._client.get_model_version_download_uri(found[1], found[2]))
        if found := _OF_RUN.fullmatch(uri):
            return f"{self._client.get_run(found[1]).info.artifact_uri}/{found[2]}"
        return None

    def _check_place(self, what: str, uri: str) -> None:
        """Raises UntrustedModelError."""
        parts, own = urlsplit(uri), urlsplit(self.uri)
        if parts.scheme in _OBJECT_STORES:
            return
        if parts.scheme in ("mlflow-artifacts", "dbfs") and parts.netloc in ("", own.netloc.rsplit("@", 1)[-1]):
            return
        if parts.scheme in ("", "file") and (own.scheme not in ("http", "https") or _is_loopback(own.hostname)):
            return
        raise UntrustedModelError(
            f"{what} is said to lie at {self._clean(uri)}: models come from MLflow at {self.shown_uri} itself, from an "
            f"object store ({', '.join(_OBJECT_STORES)}), or from this machine's disk where MLflow runs on it. Log it "
            "to an experiment that keeps its artifacts there, or choose another"
        )

    def _is_listed(self, model_uri: str, name: str) -> bool:
        from mlflow.artifacts import list_artifacts

        listed = list_artifacts(artifact_uri=self._place(model_uri), tracking_uri=self.uri)
        return any(artifact.path.rsplit("/", 1)[-1] == name for artifact in listed)

    @property
    def shown_uri(self) -> str:
        """Without a password that someone put into it."""
        parts = urlsplit(self.uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1])).rstrip("/")

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
            text = self._clean(str(error))
            if any(code in text for code in _WRONG_KEYS):
                raise ModelStoreAccessError(
                    f"the artifact store of MLflow at {self.shown_uri} refuses the keys in the connection aws_default: "
                    f"{text}"
                ) from error
            raise ModelStoreError(
                f"MLflow at {self.shown_uri}, or its artifact store, did not give what was asked: {text}"
            ) from error

    def _clean(self, text: str) -> str:
        """One line, without passwords and signed addresses."""
        text = text.replace(self.uri, self.shown_uri)
        text = re.sub(r"//[^/\s@]+@", "//", text)
        text = re.sub(r"\?[^\s'\")]+", "", text)
        return " ".join(text.split())[:500]


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def is_full_disk(error: BaseException | None) -> bool:
    """MLflow may have wrapped it, or only quoted it."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL_DISK) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


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
