"""Reads and writes the files of the staging area: a local folder, or `s3://bucket/prefix` if workers share no disk.

The files hold card data, so a local folder has mode 0700. Each write is atomic: a reader sees the old content or the
new one. The last line of each file is the digest of the rest: a wrong offset from a damaged file would lose payments,
and Parquet's own checksums leave out its footer. (`head -n 1` shows a JSON file without the digest; pandas reads a
Parquet file without its last 33 bytes.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import msgspec

from include.errors import (
    StagedFileDamagedError,
    StagedFileGoneError,
    StagingAccessError,
    StagingError,
)
from include.storage.filesystem import S3Access, open_url, whole_url
from include.storage.s3_errors import S3Fault, S3Settings, find_fault

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_Kind = TypeVar("_Kind")
_SETTING = "FRAUD_STAGING_URL"
_DIGEST_LINE_BYTES = 33
_S3 = S3Settings.of_connection("the connection aws_default", _SETTING)
_decoder_lock = threading.Lock()
_REMEDY = "if its batch is not published yet, clear the run's plan task: the run drains these payments again"


def decode(data: bytes, kind: type[_Kind]) -> _Kind:
    """Return the JSON `data` as an object of the type `kind`. Raise msgspec.DecodeError if it does not fit."""
    # msgspec prepares a type when it is used first. If two threads do that at the same time, the process crashes.
    with _decoder_lock:
        decoder = msgspec.json.Decoder(kind)
    return decoder.decode(data)


class Storage:
    """Files below one URL. Paths are relative to it, with slashes.

    An OSError of the disk or of S3 becomes a StagingError, or a StagingAccessError if S3 rejects the keys.
    """

    def __init__(self, filesystem: FileSystem, root: str, url: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._local = filesystem.type_name == "local"
        self.url = url

    @classmethod
    def open(cls, url: str, access: S3Access | None = None) -> Storage:
        """Return the storage at `url`; create a local folder. Without `access` the environment says how to reach S3.

        Raise SettingError if the URL cannot be used, and StagingError if the folder or S3 cannot be reached.
        """
        url = whole_url(url, _SETTING)
        try:
            filesystem, root = open_url(url, _SETTING, access)
        except OSError as error:
            raise _failure(f"cannot open {url}", error) from error
        storage = cls(filesystem, root, url)
        if storage._local:
            storage._make_private_folder(Path(root))
        return storage

    def _make_private_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise StagingError(
                f"cannot create the staging folder {folder}: {error.strerror}: set FRAUD_STAGING_URL to a folder in "
                "which this user may write"
            ) from error

    def require_bucket(self) -> None:
        """Raise StagingError if the bucket is missing.

        Other servers create it at the first write, but Amazon's S3 does not. Without the right to see the bucket
        nothing is raised: the first write reports a missing one.
        """
        from pyarrow.fs import FileType

        if self._local:
            return
        try:
            found = self._filesystem.get_file_info(self._root.partition("/")[0])
        except OSError:
            return
        if found.type == FileType.NotFound:
            raise StagingError(f"{self.url}: {_S3.remedy(S3Fault.NO_BUCKET)}")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def write(self, path: str, data: Any) -> None:
        """Write a file, in place of an earlier one. `data` is bytes or an object with the buffer protocol."""
        target, digest_line = self._path(path), _digest_line(data)
        try:
            if not self._local:
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(data)
                    stream.write(digest_line)
                return
            Path(target).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = Path(f"{target}.{uuid4().hex}.part")
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.write(digest_line)
                    file.flush()
                    # After the commit to Kafka only this file holds the report, so it and its name must survive a
                    # power failure.
                    os.fsync(file.fileno())
                part.replace(target)
                _sync_folder(Path(target).parent)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            raise _failure(f"cannot write {path} to {self.url}{full}", error) from error

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or None if there is no such file.

        Raise StagedFileDamagedError if its digest is wrong.
        """
        try:
            with self._filesystem.open_input_stream(self._path(path)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(f"cannot read {path} from {self.url}", error) from error
        data = content[:-_DIGEST_LINE_BYTES]
        if content[-_DIGEST_LINE_BYTES:] != _digest_line(data):
            raise StagedFileDamagedError(f"{path} in {self.url} is damaged; {_REMEDY}")
        return data

    def need(self, path: str) -> bytes:
        """Return a file's content as `read` does. Raise StagedFileGoneError if there is no such file."""
        data = self.read(path)
        if data is None:
            raise StagedFileGoneError(
                f"{path} is missing from {self.url}. Either newer runs have taken over this batch's unpublished "
                "payments (nothing needs to be done), or it was removed by hand or after FRAUD_STAGING_HOURS, or this "
                "worker does not share the staging area with the one that wrote it (set FRAUD_STAGING_URL to s3://…)"
            )
        return data

    def need_json(self, path: str, kind: type[_Kind]) -> _Kind:
        """Return a JSON file as an object of the type `kind`.

        Raise the errors of `need`, and StagedFileDamagedError if the file's content does not fit.
        """
        try:
            return decode(self.need(path), kind)
        except msgspec.DecodeError as error:
            raise StagedFileDamagedError(
                f"{path} in {self.url} was not written by this version of the product ({error}); {_REMEDY}"
            ) from error

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all its files, if it exists."""
        target = self._path(path)
        try:
            if self._filesystem.get_file_info(target).is_file:
                self._filesystem.delete_file(target)
            else:
                self._filesystem.delete_dir(target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failure(f"cannot delete {path} from {self.url}", error) from error

    def list(self, folder: str) -> list[str]:
        """Return the names of the files and folders directly in `folder`, sorted; none if there is no such folder."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        try:
            found = self._filesystem.get_file_info(selector)
        except FileNotFoundError:
            # Another shard has just created it: Arrow opens a local folder first and then asks whether it exists.
            return []
        except OSError as error:
            raise _failure(f"cannot list {folder} in {self.url}", error) from error
        return sorted(info.base_name for info in found if not info.base_name.endswith(".part"))


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, so that a new file's name survives a power failure."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _digest_line(data: Any) -> bytes:
    return b"\n" + hashlib.sha256(data).hexdigest()[:32].encode()


def _failure(action: str, error: OSError) -> StagingError:
    kind = StagingAccessError if find_fault(error) is S3Fault.WRONG_KEYS else StagingError
    return kind(f"{action}: {_S3.with_remedy(error)}")
