"""A folder or s3://bucket/prefix as Arrow's file system, and what Arrow's errors say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from include.errors import SettingError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

WRONG_KEYS = ("SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MISTYPED_URL = re.compile(r"[a-z][a-z0-9+.-]*:|(?:s3[an]?|file)//", re.IGNORECASE)
# A bucket name has no colon. A colon separates an access key from a secret key, which may contain slashes.
_LOGIN = re.compile(r"[a-z0-9+.-]+://[^/?#]*@|s3://[^/?#]*:", re.IGNORECASE)
_BUCKET = re.compile(r"[\w.-]+")
# What an address of S3 may say, as in Arrow's own reading of it.
_OPTIONS = ("region", "scheme", "endpoint_override")


@dataclass(frozen=True)
class S3Access:
    """Keys, region and endpoint for one file system. The process's environment, which others may share, stays as it is.

    Without keys Arrow looks for them: in the environment, in files and at the machine.
    """

    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint: str | None = None


def whole_url(url: str, name: str) -> str:
    """Return the URL, also of a folder that is given by its path. Raise SettingError, which names the setting `name`,
    for a URL without its two slashes: as a path it would be a folder of that name."""
    if _URL.match(url):
        return url
    if _MISTYPED_URL.match(url):
        # It may hold keys, so it is not shown.
        raise SettingError(
            f"{name} begins like a URL, but its scheme and :// are incomplete: give s3://bucket/prefix, or a folder by "
            "its whole path or as file:///…"
        )
    return Path(url).expanduser().absolute().as_uri()


def open_url(url: str, name: str, access: S3Access | None = None) -> tuple[FileSystem, str]:
    """The file system, and the path in it. `name`: the setting that says so. Without `access` the environment says how
    to reach S3. Raises SettingError where the URL cannot be used, and Arrow's OSError where the place cannot be
    reached."""
    from pyarrow.fs import FileSystem

    url = whole_url(url, name)
    if _LOGIN.match(url):
        raise SettingError(
            f"{name} contains a login or keys, which logs would show: give a folder or s3://bucket/prefix. Put the "
            "keys into the connection aws_default, or into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    # Its options may hold keys as well.
    shown = url.partition("?")[0]
    try:
        if access is not None and url.startswith("s3://"):
            filesystem, root = _open_s3(url, access)
        else:
            filesystem, root = FileSystem.from_uri(_with_region(url))
    except (ValueError, NotImplementedError) as error:
        raise SettingError(f"{name}={shown!r}: give a folder or s3://bucket/prefix ({first_line(error)})") from error
    if not root:
        raise SettingError(f"{name}={shown!r}: no folder or bucket is named")
    return filesystem, root


def without_login(url: str) -> str:
    """Without the user and password that an address can hold."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def aws_error(error: OSError) -> str:
    """S3's own code, as Arrow writes it: NO_SUCH_BUCKET; empty where it has none."""
    return first_line(error).partition("AWS Error ")[2].partition(" ")[0]


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _open_s3(url: str, access: S3Access) -> tuple[FileSystem, str]:
    """Raise ValueError where the address cannot be used."""
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    if unknown := sorted(given.keys() - set(_OPTIONS)):
        raise ValueError(f"unknown option {', '.join(unknown)}; known: {', '.join(_OPTIONS)}")
    if parts.netloc and not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"bucket name {parts.netloc!r}: use letters, digits, dots and hyphens only")
    endpoint = urlsplit(access.endpoint or _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or "")
    server = given.get("endpoint_override") or endpoint.netloc or None
    region = given.get("region") or access.region or _variable("AWS_REGION", "AWS_DEFAULT_REGION")
    if region is None and server is None and parts.netloc:
        region = resolve_s3_region(parts.netloc)
    filesystem = S3FileSystem(
        access_key=access.access_key,
        secret_key=access.secret_key,
        session_token=access.session_token,
        region=region,
        scheme=given.get("scheme") or endpoint.scheme or None,
        endpoint_override=server,
    )
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")


def _variable(*names: str) -> str | None:
    return next(filter(None, map(os.environ.get, names)), None)


def _with_region(url: str) -> str:
    """Told the region, Arrow does not ask Amazon for that of the bucket, each time anew."""
    region = _variable("AWS_REGION", "AWS_DEFAULT_REGION")
    if not region or not url.startswith("s3://") or "region=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}region={region}"
