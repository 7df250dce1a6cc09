"""Query the logged models that came with MLflow 3, on servers that have them and on servers that do not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from include.errors import ModelNotFoundError
from include.models.mlflow_errors import NOT_FOUND_CODES, translate_errors
from include.models.mlflow_server import MlflowServer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.entities import PagedList

log = logging.getLogger(__name__)

# The first page has the server's default size, because it mostly suffices.
_LARGE_PAGE = 1_000
_NEWEST_FIRST = [{"field_name": "creation_timestamp", "ascending": False}]


class LoggedModels:
    """The logged models of one MLflow server.

    A server that rejects requests for them in every experiment counts as one without logged models. If it rejects them
    for one experiment and answers for another, the methods raise ModelStoreError: a hidden model may be the newest.
    """

    def __init__(self, client: MlflowClient, uri: str, server: MlflowServer) -> None:
        self._client = client
        self._uri = uri
        self._server = server
        self._has_answered = False
        # The HTTP status of a rejected search, by experiment id.
        self._rejections: dict[str, int] = {}

    def search(self, experiment_id: str, where: str) -> Iterator[LoggedModel]:
        """Yield the READY models that match the filter, the newest (by creation time) first.

        Yield none if the server has no logged models. Raise ModelStoreError if it has them and rejects the search.
        """
        token = None
        while experiment_id not in self._rejections:
            page = self._page(experiment_id, where, token)
            yield from (model for model in page if str(model.status) == "READY")
            token = page.token
            if not token:
                return

    def _page(self, experiment_id: str, where: str, token: str | None) -> PagedList[LoggedModel]:
        """Return a page of the search, which is empty if the server has no logged models."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.entities import PagedList

        with translate_errors(self._uri, self._server):
            try:
                size = _LARGE_PAGE if token else None
                page = self._client.search_logged_models(
                    [experiment_id], where, max_results=size, order_by=_NEWEST_FIRST, page_token=token
                )
                self._has_answered = True
            except MlflowException:
                status = self._server.rejection_of_search(experiment_id)
                if status is None:
                    raise
                if not self._rejections:
                    log.info("%s: the artifacts of runs are searched for models instead", self._describe(status))
                self._rejections[experiment_id] = status
                page = PagedList([], None)
        if self._has_answered and self._rejections:
            experiment_id, status = next(iter(self._rejections.items()))
            raise self._server.rejection_error(status, f"for the experiment {experiment_id}, but not for others")
        return page

    def check_readable(self, run: Run) -> None:
        """Raise ModelStoreError if the run has a logged model, but the server rejected the search for it."""
        status = self._rejections.get(run.info.experiment_id)
        if status is not None and run.outputs and run.outputs.model_outputs:
            raise self._server.rejection_error(status, f"although run {run.info.run_id} has a logged model")

    @property
    def unavailable_reason(self) -> str | None:
        """Return a sentence on the server's answer if a search found that it has no logged models, else None."""
        return self._describe(next(iter(self._rejections.values()))) if self._rejections else None

    def _describe(self, status: int) -> str:
        version = self._server.version()
        suffix = f" (version {version})" if version else ""
        return (
            f"MLflow at {self._server.shown_uri}{suffix} answers {status} for the logged models that came with MLflow 3"
        )

    def get(self, model_id: str) -> LoggedModel:
        """Return a logged model. Raise ModelNotFoundError if the server has none of that id, or no logged models."""
        from mlflow.exceptions import MlflowException

        with translate_errors(self._uri, self._server):
            try:
                return self._client.get_logged_model(model_id)
            except MlflowException as error:
                if error.error_code in NOT_FOUND_CODES:
                    raise ModelNotFoundError(
                        f"MLflow at {self._server.shown_uri} has no logged model {model_id}"
                    ) from error
                status = self._server.rejection_of_get(model_id)
                if status is None:
                    raise
                raise ModelNotFoundError(
                    f"{self._describe(status)}, so {model_id} cannot be found by its id: request the model by its run "
                    "and its name, runs:/<run id>/<name>"
                ) from error
