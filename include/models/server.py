"""Which MLflow server answers: its version, and which of the endpoints that are needed it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Aliases came with 2.3, data sets of a run with 2.4.
OLDEST = (2, 4)
# What servers, and proxies in front of them, answer for an endpoint that they do not have.
_ABSENT = (403, 404, 405, 501)
_SEARCH = "/api/2.0/mlflow/logged-models/search"


class Server:
    """Query the server directly, because MLflow's client hides the HTTP status. Methods return None if there is no
    answer; the caller has an error of its own to raise."""

    def __init__(self, client: MlflowClient) -> None:
        # MLflow has no public way to the login that it uses.
        self._store: Any = client._tracking_client.store  # noqa: SLF001

    def version(self) -> str | None:
        """Return what the server calls its version; None where it does not say (hosted ones), or is a database."""
        response = self._request("GET", "/version")
        if response is None or response.status_code != 200:
            return None
        return found[0] if (found := re.fullmatch(r"\d+(\.\w+)+", response.text.strip())) else None

    def status_without_logged_models(self, experiment_id: str) -> int | None:
        """Return the HTTP status with which the server says that it has no logged models, which came with MLflow 3;
        None where it has them, or did not answer."""
        response = self._request("POST", _SEARCH, json={"experiment_ids": [experiment_id], "max_results": 1})
        return response.status_code if response is not None and response.status_code in _ABSENT else None

    def version_error(self) -> str | None:
        """Return an error text with the server's version if that is too old; else None."""
        version = self.version()
        if version is None or tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= OLDEST:
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
