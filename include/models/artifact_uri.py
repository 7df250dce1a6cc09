"""Find where a model's files are stored, and accept only MLflow itself and the object stores that it names."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.errors import UntrustedModelError
from include.models.tracking_uri import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from include.models.logged_models import LoggedModels

# Schemes with which MLflow may refer to files outside of it. Schemes whose URI names a host (http, abfss, r2, hdfs) are
# missing: with one of them, a user who can write to MLflow could make the worker send its passwords to another server.
_OBJECT_STORE_SCHEMES = ("s3", "gs", "wasbs")
_LOGGED_MODEL_URI = re.compile(r"models:/(m-[^/@]+)")
_VERSION_URI = re.compile(r"models:/([^/@]+)/([0-9]+)")
_RUN_URI = re.compile(r"runs:/([^/]+)/(.+)")
# A copied version refers to the version that it was copied from.
_MAX_REFERENCES = 5


class ArtifactUris:
    """Resolve model URIs to the URIs of their files, each once. `uri` is the tracking URI."""

    def __init__(self, client: MlflowClient, uri: str, logged_models: LoggedModels) -> None:
        self._client = client
        self.uri = uri
        self._logged_models = logged_models
        self._resolved: dict[str, str] = {}

    def resolve(self, model_uri: str) -> str:
        """Return the URI of the model's files. Raise UntrustedModelError as `require_trusted` does.

        MLflow's own downloads would follow a reference to any server.
        """
        if model_uri not in self._resolved:
            uri = model_uri
            for _ in range(_MAX_REFERENCES):
                uri = self._referenced_uri(uri) or uri
            self.require_trusted(f"the model {model_uri}", uri)
            self._resolved[model_uri] = uri
        return self._resolved[model_uri]

    def _referenced_uri(self, uri: str) -> str | None:
        if match := _LOGGED_MODEL_URI.fullmatch(uri):
            return str(self._logged_models.get(match[1]).artifact_location)
        if match := _VERSION_URI.fullmatch(uri):
            return str(self._client.get_model_version_download_uri(match[1], match[2]))
        if match := _RUN_URI.fullmatch(uri):
            return f"{self._client.get_run(match[1]).info.artifact_uri}/{match[2]}"
        return None

    def require_trusted(self, model: str, uri: str) -> None:
        """Raise UntrustedModelError, which names `model`, unless `uri` is in MLflow, an object store or a local MLflow.

        A path on this machine's disk is accepted only if MLflow runs on this machine or has no server.
        """
        parts, mlflow = urlsplit(uri), urlsplit(self.uri)
        if parts.scheme in _OBJECT_STORE_SCHEMES:
            return
        if parts.scheme in ("mlflow-artifacts", "dbfs") and parts.netloc in ("", mlflow.netloc.rsplit("@", 1)[-1]):
            return
        if parts.scheme in ("", "file") and (mlflow.scheme not in ("http", "https") or _is_loopback(mlflow.hostname)):
            return
        raise UntrustedModelError(
            f"{model} is stored at {redact(uri, self.uri)}. Models are loaded from MLflow at "
            f"{without_credentials(self.uri)}, from an object store ({', '.join(_OBJECT_STORE_SCHEMES)}), or from this "
            "machine's disk if MLflow runs on it. Log the model to an experiment whose artifact location is one of "
            "these, or choose another model"
        )


def redact(text: str, uri: str) -> str:
    """Return `text` as one line of at most 500 characters, without passwords and signed URLs; `uri` is MLflow's."""
    text = text.replace(uri, without_credentials(uri))
    text = re.sub(r"//[^/\s@]+@", "//", text)
    text = re.sub(r"\?[^\s'\")]+", "", text)
    return " ".join(text.split())[:500]


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
