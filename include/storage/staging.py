"""Read and write the files of the staging area: in a local folder, or at `s3://bucket/prefix` if workers share no disk.

The files hold card data, so a local folder has mode 0700. Each write is atomic: a reader sees the old content or the
new one. Each file ends with a line that is the digest of the rest: a wrong offset read from a damaged file would lose
payments, and Parquet's own checksums leave out its footer. (`head -n 1` shows a JSON file without the digest; pandas
reads a Parquet file once the last 33 bytes are cut off.)
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
_SEAL_BYTES = 33
_S3 = S3Settings.of_connection("the connection aws_default", _SETTING)
_first_use = threading.Lock()
_REMEDY = "if its batch is not published yet, clear the run's plan task: the run drains these payments again"


def decode(data: bytes, kind: type[_Kind]) -> _Kind:
    """Return the JSON `data` as an object of the type `kind`. Raise msgspec.DecodeError if it is none."""
    # msgspec prepares a type at its first use. If two threads do so at once, one of them crashes the process.
    with _first_use:
        decoder = msgspec.json.Decoder(kind)
    return decoder.decode(data)


class Storage:
    """Files below one URL. Paths are relative to it, with slashes. An OSError of the disk or of S3 becomes a
    StagingError, or a StagingAccessError if S3 rejects the keys."""

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
        """Raise StagingError if the bucket is missing: Amazon's S3 does not create it at the first write, as other
        servers do. A user without the right to see the bucket learns of it from the first write."""
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
        """Write a file in place of an earlier one. `data`: bytes, or any object with the buffer protocol."""
        target, seal = self._path(path), _seal(data)
        try:
            if not self._local:
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(data)
                    stream.write(seal)
                return
            Path(target).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = Path(f"{target}.{uuid4().hex}.part")
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.write(seal)
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
        """Return a file's content, or None if there is no such file. Raise StagedFileDamagedError if its digest is
        wrong."""
        try:
            with self._filesystem.open_input_stream(self._path(path)) as stream:
                sealed: bytes = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(f"cannot read {path} from {self.url}", error) from error
        data = sealed[:-_SEAL_BYTES]
        if sealed[-_SEAL_BYTES:] != _seal(data):
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
        """Return a JSON file as an object of the type `kind`. Raise as `need`, and StagedFileDamagedError if the file
        holds something else."""
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


def _seal(data: Any) -> bytes:
    return b"\n" + hashlib.sha256(data).hexdigest()[:32].encode()


def _failure(what: str, error: OSError) -> StagingError:
    kind = StagingAccessError if find_fault(error) is S3Fault.WRONG_KEYS else StagingError
    return kind(f"{what}: {_S3.with_remedy(error)}")
