"""Ask the MLflow server for its version, and find out whether it has logged models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from include.errors import ModelStoreError
from include.models.tracking_uri import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Aliases came with 2.3, the data sets of a run with 2.4.
MIN_VERSION = (2, 4)
# Servers, and proxies in front of them, answer one of these for an endpoint that they do not have.
_NO_ENDPOINT_STATUSES = (403, 404, 405, 501)
_LOGGED_MODELS_PATH = "/api/2.0/mlflow/logged-models"
_SEARCH_PATH = f"{_LOGGED_MODELS_PATH}/search"


class MlflowServer:
    """A tracking server, which is queried without MLflow's client, because the client hides the HTTP status.

    The queries return None if the server does not answer: the caller has an error of its own to raise.
    """

    def __init__(self, client: MlflowClient) -> None:
        # MLflow has no public access to the login that it uses.
        self._store: Any = client._tracking_client.store  # noqa: SLF001
        self.shown_uri = without_credentials(str(client.tracking_uri))

    def version(self) -> str | None:
        """Return the server's version, None if it does not tell (hosted servers), or MLflow is a database."""
        response = self._request("GET", "/version")
        if response is None or response.status_code != 200:
            return None
        return match[0] if (match := re.fullmatch(r"\d+(\.\w+)+", response.text.strip())) else None

    def rejection_of_search(self, experiment_id: str) -> int | None:
        """Return the HTTP status with which the server rejects a search for logged models, None if it accepts one."""
        return self._rejection("POST", _SEARCH_PATH, json={"experiment_ids": [experiment_id], "max_results": 1})

    def rejection_of_get(self, model_id: str) -> int | None:
        """Return the HTTP status with which the server rejects a request for one logged model, None if it accepts."""
        return self._rejection("GET", f"{_LOGGED_MODELS_PATH}/{model_id}")

    def _rejection(self, method: str, path: str, **content: Any) -> int | None:
        response = self._request(method, path, **content)
        if response is None or response.status_code not in _NO_ENDPOINT_STATUSES:
            return None
        return int(response.status_code)

    def rejection_error(self, status: int, circumstance: str) -> ModelStoreError:
        """Return the error for a server that has logged models and rejects a search for them."""
        return ModelStoreError(
            f"MLflow at {self.shown_uri} answers {status} to POST {_SEARCH_PATH}, {circumstance}: which logged models "
            "it has is unknown. Check that the login may read them and that a proxy in front of MLflow lets the "
            "request through"
        )

    def version_error(self) -> str | None:
        """Return an error text with the server's version if that is too old, else None."""
        version = self.version()
        if version is None or _major_minor(version) >= MIN_VERSION:
            return None
        required = ".".join(map(str, MIN_VERSION))
        return f"the server runs MLflow {version}, which is too old: upgrade it to {required} or later"

    def _request(self, method: str, path: str, **content: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request
        from requests import RequestException

        if not hasattr(self._store, "get_host_creds"):
            return None
        try:
            credentials = self._store.get_host_creds()
            return http_request(credentials, path, method, raise_on_status=False, **content)  # type: ignore[no-untyped-call]
        except (MlflowException, RequestException):
            return None


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
