"""Which MLflow server answers: its version, and which of the endpoints that are needed it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from include.errors import ModelStoreError
from include.models.tracking_uri import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Aliases came with 2.3, data sets of a run with 2.4.
OLDEST = (2, 4)
# What servers, and proxies in front of them, answer for an endpoint that they do not have.
_ABSENT = (403, 404, 405, 501)
_LOGGED_MODELS = "/api/2.0/mlflow/logged-models"
_SEARCH = f"{_LOGGED_MODELS}/search"


class Server:
    """Query the server directly, because MLflow's client hides the HTTP status. Methods return None if there is no
    answer; the caller has an error of its own to raise."""

    def __init__(self, client: MlflowClient) -> None:
        # MLflow has no public way to the login that it uses.
        self._store: Any = client._tracking_client.store  # noqa: SLF001
        self.shown_uri = without_credentials(str(client.tracking_uri))

    def version(self) -> str | None:
        """Return what the server calls its version; None where it does not say (hosted ones), or is a database."""
        return _version(self._request("GET", "/version"))

    def status_without_logged_models(self, experiment_id: str) -> int | None:
        """Return the HTTP status with which the server says that it has no logged models, which came with MLflow 3;
        None where it has them, or did not answer."""
        return self._status_without("POST", _SEARCH, json={"experiment_ids": [experiment_id], "max_results": 1})

    def status_without_logged_model(self, model_id: str) -> int | None:
        """Return the same for a request for a single one."""
        return self._status_without("GET", f"{_LOGGED_MODELS}/{model_id}")

    def _status_without(self, method: str, path: str, **content: Any) -> int | None:
        response = self._request(method, path, **content)
        if response is None or response.status_code not in _ABSENT:
            return None
        return int(response.status_code)

    def refusal(self, status: int, why: str) -> ModelStoreError:
        """Return the error for a server that has logged models and refuses them."""
        return ModelStoreError(
            f"MLflow at {self.shown_uri} answers {status} to POST {_SEARCH}, {why}: which logged models it has is "
            "unknown. Check that the login may read them and that a proxy in front of MLflow lets the request through"
        )

    def version_error(self) -> str | None:
        """Return an error text with the server's version if that is too old; else None."""
        version = self.version()
        if version is None or _numbers(version) >= OLDEST:
            return None
        return (
            f"the server runs MLflow {version}, which is too old: upgrade it to {'.'.join(map(str, OLDEST))} or later"
        )

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


def _version(response: Any) -> str | None:
    if response is None or response.status_code != 200:
        return None
    return found[0] if (found := re.fullmatch(r"\d+(\.\w+)+", response.text.strip())) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
