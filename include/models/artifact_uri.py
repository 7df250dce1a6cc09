"""Where models are taken from: the configured MLflow, and the object stores that it names."""

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

# Where MLflow may say that a model's files lie, besides MLflow itself. No address that names its own host (http, abfss,
# r2, hdfs): whoever can write to MLflow could have the worker send its passwords to a server of theirs.
_OBJECT_STORES = ("s3", "gs", "wasbs")
_LOGGED = re.compile(r"models:/(m-[^/@]+)")
_VERSION = re.compile(r"models:/([^/@]+)/([0-9]+)")
_OF_RUN = re.compile(r"runs:/([^/]+)/(.+)")
# A copied version names the one that it was copied from.
_MOST_STEPS = 5


class ArtifactUris:
    def __init__(self, client: MlflowClient, uri: str, logged_models: LoggedModels) -> None:
        self._client = client
        self.uri = uri
        self._logged_models = logged_models
        self._found: dict[str, str] = {}

    def of(self, model_uri: str) -> str:
        """Where the files lie in the end. MLflow's own downloads would follow it anywhere."""
        if model_uri not in self._found:
            place = model_uri
            for _ in range(_MOST_STEPS):
                place = self._further(place) or place
            self.check(f"the model {model_uri}", place)
            self._found[model_uri] = place
        return self._found[model_uri]

    def _further(self, uri: str) -> str | None:
        if found := _LOGGED.fullmatch(uri):
            return str(self._logged_models.get(found[1]).artifact_location)
        if found := _VERSION.fullmatch(uri):
            return str(self._client.get_model_version_download_uri(found[1], found[2]))
        if found := _OF_RUN.fullmatch(uri):
            return f"{self._client.get_run(found[1]).info.artifact_uri}/{found[2]}"
        return None

    def check(self, what: str, uri: str) -> None:
        """Raises UntrustedModelError."""
        parts, own = urlsplit(uri), urlsplit(self.uri)
        if parts.scheme in _OBJECT_STORES:
            return
        if parts.scheme in ("mlflow-artifacts", "dbfs") and parts.netloc in ("", own.netloc.rsplit("@", 1)[-1]):
            return
        if parts.scheme in ("", "file") and (own.scheme not in ("http", "https") or _is_loopback(own.hostname)):
            return
        raise UntrustedModelError(
            f"{what} is said to lie at {cleaned(uri, self.uri)}: models come from MLflow at "
            f"{without_credentials(self.uri)} itself, from an object store ({', '.join(_OBJECT_STORES)}), or from this "
            "machine's disk where MLflow runs on it. Log it to an experiment that keeps its artifacts there, or choose "
            "another"
        )


def cleaned(text: str, uri: str) -> str:
    """One line, without passwords and signed addresses."""
    text = text.replace(uri, without_credentials(uri))
    text = re.sub(r"//[^/\s@]+@", "//", text)
    text = re.sub(r"\?[^\s'\")]+", "", text)
    return " ".join(text.split())[:500]


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
