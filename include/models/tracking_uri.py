"""Read and validate MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from include.errors import SettingError

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
_QUOTES = "\"'`“”„«»\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}"
# A host name with a port, or with a dot in it, or localhost; with or without a path after it.
_HOST = re.compile(r"(([\w-]+\.)+[\w-]+|localhost|\[[0-9a-fA-F:]+\])(:\d+)?(/.*)?|[\w-]+:\d+(/.*)?")
# MLflow's own names for Databricks, and addresses for plugins (arn:aws:sagemaker:…).
_OTHER_SCHEMES = re.compile(r"databricks(-uc)?|uc|arn:.+")
# In these addresses the text before an @ is part of a path, not a login.
_LOCAL_PATH = re.compile(r"(sqlite|file)[^/]*:|/")


def tracking_uri() -> str:
    """Return MLflow's address. Raise SettingError if it is missing or invalid."""
    uri = os.environ.get(TRACKING, "").strip()
    if not uri:
        raise SettingError(
            f"{TRACKING} is not set: give the address of the MLflow that holds the models, such as "
            "http://127.0.0.1:5000"
        )
    return _validate(TRACKING, uri)


def registry_uri() -> str | None:
    """Return the address of a separate model registry, None if there is none. Raise SettingError if it is invalid."""
    uri = os.environ.get(REGISTRY, "").strip()
    return _validate(REGISTRY, uri) if uri else None


def without_credentials(uri: str) -> str:
    """Return the address without a login, and otherwise unchanged."""
    if not _LOCAL_PATH.match(uri):
        # Up to the last @, because a password may hold any character.
        uri = re.sub(r"^([^/]*//|[\"'`]?).*@", r"\1", uri)
        uri = re.sub(r"(?i)((?:password|pwd|token|secret)=)[^&\s]*", r"\1…", uri)
    return uri


def _validate(name: str, uri: str) -> str:
    for mistake in _find_mistakes(uri):
        raise SettingError(f"{name}={without_credentials(uri)}: {mistake}")
    return uri


def _find_mistakes(uri: str) -> Iterator[str]:
    """Yield what is wrong with the address, and how to correct it."""
    if uri[0] in _QUOTES or uri[-1] in _QUOTES:
        yield "the value itself has quotes around it: remove them (docker's --env-file keeps them)"
    if _OTHER_SCHEMES.fullmatch(uri):
        return
    if "://" not in uri and _HOST.fullmatch(without_credentials(uri)) and not Path(uri).exists():
        address = without_credentials(uri)
        yield f"it has no scheme: give http://{address}, or https:// if the server has a certificate"
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        # Reading the port raises ValueError if it is not a port number.
        _ = parts.port if parts.scheme in ("http", "https") else None
    except ValueError:
        # The error's own text may quote a password.
        yield (
            "it is not a valid address: give one such as http://127.0.0.1:5000, and write /, ? and # in a password as "
            "%2F, %3F and %23"
        )
        return
    if parts.scheme in ("http", "https"):
        if not host or re.search(r"\s", uri):
            yield "it names no host: give an address such as http://127.0.0.1:5000"
        if "#" in uri:
            yield _fragment_mistake(uri)
    elif parts.scheme.startswith("sqlite"):
        yield from _find_database_mistakes(uri.split("://", 1)[-1].split("?")[0].removeprefix("/"))
    elif parts.scheme in ("", "file"):
        yield from _find_folder_mistakes(unquote(parts.path) if parts.scheme else uri)


def _fragment_mistake(uri: str) -> str:
    address, _, rest = uri.partition("#")
    if "@" in rest:
        # No address is suggested here: it could end in the middle of a password.
        return "it has a # in it: write a # in a password as %23, and leave out the page of MLflow's user interface"
    return (
        "the part from # on is a page of MLflow's user interface, not an address of the server: give "
        f"{without_credentials(address).rstrip('/')}"
    )


def _find_database_mistakes(path: str) -> Iterator[str]:
    """Yield what is wrong with the path after sqlite:///; an absolute one makes four slashes, as SQLAlchemy wants."""
    if not path.startswith("/"):
        yield (
            f"the path {path!r} is relative, so each process would have a database of its own: give the whole path, "
            f"such as sqlite:////srv/mlflow/{path.rsplit('/', 1)[-1] or 'mlflow.db'} (four slashes)"
        )
    elif not Path(path).parent.is_dir():
        yield f"the folder {Path(path).parent} does not exist on this machine"


def _find_folder_mistakes(path: str) -> Iterator[str]:
    if not path.startswith("/"):
        yield (
            "it is not a server address (http://… or https://…), and as a folder it is relative, so each process "
            "would use another one: give the whole address or the whole path"
        )
    elif not Path(path).is_dir():
        yield f"the folder {path} does not exist on this machine"
