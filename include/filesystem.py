"""A folder or s3://bucket/prefix as Arrow's file system, and what Arrow's errors say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.errors import SettingError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

WRONG_KEYS = ("SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID")


def whole_url(url: str) -> str:
    """A folder may be given by its path."""
    return url if "://" in url else Path(url).expanduser().absolute().as_uri()


def open_url(url: str, name: str) -> tuple[FileSystem, str]:
    """The file system, and the path in it. `name`: the setting that says so. Raises SettingError where the URL cannot
    be used, and Arrow's OSError where the place cannot be reached."""
    from pyarrow.fs import FileSystem

    try:
        filesystem, root = FileSystem.from_uri(_with_region(whole_url(url)))
    except (ValueError, NotImplementedError) as error:
        raise SettingError(
            f"{name}={without_login(url)!r}: give a folder or s3://bucket/prefix ({first_line(error)})"
        ) from error
    if not root:
        raise SettingError(f"{name}={without_login(url)!r}: no folder or bucket is named")
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


def _with_region(url: str) -> str:
    """Told the region, Arrow does not ask Amazon for that of the bucket, each time anew."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region or not url.startswith("s3://") or "region=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}region={region}"
