"""Query the logged models that came with MLflow 3, on servers that have them and on servers that do not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from include.errors import ModelNotFoundError
from include.models.mlflow_errors import NOT_THERE, translate_errors
from include.models.mlflow_server import Server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.entities import PagedList

log = logging.getLogger(__name__)

# The first page is as small as the server's default, for it mostly suffices.
_LARGE_PAGE = 1_000
_NEWEST_FIRST = [{"field_name": "creation_timestamp", "ascending": False}]


class LoggedModels:
    """Search logged models by experiment. Raise ModelStoreError where the server refuses them for one experiment and
    answers for another: a hidden model may be the newest."""

    def __init__(self, client: MlflowClient, uri: str, server: Server) -> None:
        self._client = client
        self._uri = uri
        self._server = server
        self._answered = False
        # HTTP statuses by experiment.
        self._refused: dict[str, int] = {}

    def search(self, experiment_id: str, where: str) -> Iterator[LoggedModel]:
        """Yield those that are READY, the newest (by creation) first; none where the server has no logged models. Raise
        ModelStoreError where it has them and refuses them, for the missing ones may be the newest."""
        token = None
        while experiment_id not in self._refused:
            page = self._page(experiment_id, where, token)
            yield from (model for model in page if str(model.status) == "READY")
            token = page.token
            if not token:
                return

    def _page(self, experiment_id: str, where: str, token: str | None) -> PagedList[LoggedModel]:
        """Return an empty one where the server has no logged models."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.entities import PagedList

        with translate_errors(self._uri, self._server):
            try:
                size = _LARGE_PAGE if token else None
                page = self._client.search_logged_models(
                    [experiment_id], where, max_results=size, order_by=_NEWEST_FIRST, page_token=token
                )
                self._answered = True
            except MlflowException:
                status = self._server.status_without_logged_models(experiment_id)
                if status is None:
                    raise
                if not self._refused:
                    log.info("%s: models are looked for among the artifacts of runs", self._absence(status))
                self._refused[experiment_id] = status
                page = PagedList([], None)
        if self._answered and self._refused:
            experiment_id, status = next(iter(self._refused.items()))
            raise self._server.refusal(status, f"for the experiment {experiment_id}, but not for others")
        return page

    def check_readable(self, run: Run) -> None:
        """Raise ModelStoreError where the run names a logged model, so that the server must have them, but they were
        refused."""
        status = self._refused.get(run.info.experiment_id)
        if status is not None and run.outputs and run.outputs.model_outputs:
            raise self._server.refusal(status, f"although run {run.info.run_id} has a logged model")

    @property
    def absence(self) -> str | None:
        """Return what the server answered for logged models where it has none; None where that is not known."""
        return self._absence(next(iter(self._refused.values()))) if self._refused else None

    def _absence(self, status: int) -> str:
        version = self._server.version()
        which = f" (version {version})" if version else ""
        return (
            f"MLflow at {self._server.shown_uri}{which} answers {status} for the logged models that came with MLflow 3"
        )

    def get(self, model_id: str) -> LoggedModel:
        """Raise ModelNotFoundError where there is none of that id, or the server has no logged models."""
        from mlflow.exceptions import MlflowException

        with translate_errors(self._uri, self._server):
            try:
                return self._client.get_logged_model(model_id)
            except MlflowException as error:
                if error.error_code in NOT_THERE:
                    raise ModelNotFoundError(
                        f"MLflow at {self._server.shown_uri} has no logged model {model_id}"
                    ) from error
                status = self._server.status_without_logged_model(model_id)
                if status is None:
                    raise
                raise ModelNotFoundError(
                    f"{self._absence(status)}, so {model_id} cannot be found by its id: ask for the model by its run "
                    "and its name, runs:/<run id>/<name>"
                ) from error
