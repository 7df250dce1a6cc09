"""Opens a folder or s3://bucket/prefix as Arrow's file system."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from include.errors import SettingError
from include.storage.s3_errors import first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MISTYPED_URL = re.compile(r"[a-z][a-z0-9+.-]*:|(?:s3[an]?|file)//", re.IGNORECASE)
# A bucket name has no colon. A colon separates an access key from a secret key, which may contain slashes.
_LOGIN = re.compile(r"[a-z0-9+.-]+://[^/?#]*@|s3://[^/?#]*:", re.IGNORECASE)
_BUCKET = re.compile(r"[\w.-]+")
# The options in a URL that Arrow's FileSystem.from_uri accepts for S3 and that matter here.
_OPTIONS = ("region", "scheme", "endpoint_override")


@dataclass(frozen=True)
class S3Access:
    """Keys, region and endpoint of one file system: they are passed to Arrow, so the environment stays unchanged.

    Without keys Arrow looks for them in the environment, in AWS's configuration files and in the machine's metadata.
    """

    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint: str | None = None


def whole_url(url: str, name: str) -> str:
    """Return `url`, or the file:// URL of a folder if `url` is a path.

    Raise SettingError, which names the setting `name`, if the scheme or its slashes are incomplete: such a text would
    otherwise become a folder of that name.
    """
    if _URL.match(url):
        return url
    if _MISTYPED_URL.match(url):
        # The error does not quote the URL, because it may hold keys.
        raise SettingError(
            f"{name} begins like a URL, but its scheme and :// are incomplete: give s3://bucket/prefix, or a folder by "
            "its whole path or as file:///…"
        )
    return Path(url).expanduser().absolute().as_uri()


def open_url(url: str, name: str, access: S3Access | None = None) -> tuple[FileSystem, str]:
    """Return Arrow's file system and the path in it. Without `access` the environment says how to reach S3.

    Raise SettingError, which names the setting `name`, if the URL cannot be used, and Arrow's OSError if S3 cannot be
    reached.
    """
    from pyarrow.fs import FileSystem

    url = whole_url(url, name)
    if _LOGIN.match(url):
        raise SettingError(
            f"{name} contains a login or keys, which logs would show: give a folder or s3://bucket/prefix. Put the "
            "keys into the connection aws_default, or into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    # The URL's options may hold keys too.
    shown = url.partition("?")[0]
    try:
        if access is not None and url.startswith("s3://"):
            filesystem, root = _open_s3(url, access)
        else:
            filesystem, root = FileSystem.from_uri(_with_region(url))
    except (ValueError, NotImplementedError) as error:
        raise SettingError(f"{name}={shown!r}: give a folder or s3://bucket/prefix ({first_line(error)})") from error
    if not root:
        raise SettingError(f"{name}={shown!r} names no folder and no bucket: give a folder or s3://bucket/prefix")
    return filesystem, root


def without_login(url: str) -> str:
    """Return the URL without a user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _open_s3(url: str, access: S3Access) -> tuple[FileSystem, str]:
    """Return Arrow's file system of S3 and the path in it. Raise ValueError if the URL cannot be used."""
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
    """Add the environment's region to the URL: without one, Arrow asks Amazon for the bucket's region at each call."""
    region = _variable("AWS_REGION", "AWS_DEFAULT_REGION")
    if not region or not url.startswith("s3://") or "region=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}region={region}"
