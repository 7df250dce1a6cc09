"""The staging area behind a URL: a local folder, or `s3://bucket/prefix` where workers share no disk.

It holds card data: a local folder is mode 0700. Every write is atomic: a reader sees the old content or the new. And
every file ends with a line that is the digest of the rest: a wrong offset read from a damaged one would lose payments,
and Parquet's own checksums leave out its footer. (`head -n 1` shows a JSON file without it; pandas reads a Parquet file
once the last 33 bytes are cut off.)
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
from include.storage.filesystem import WRONG_KEYS, S3Access, aws_error, first_line, open_url, whole_url

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_Kind = TypeVar("_Kind")
_SETTING = "FRAUD_STAGING_URL"
_SEAL_BYTES = 33
_HINTS = {
    **dict.fromkeys(WRONG_KEYS, "check the keys in the connection aws_default"),
    "ACCESS_DENIED": "the user of the connection aws_default lacks the right to it",
    "NO_SUCH_BUCKET": "the bucket does not exist: create it, or set FRAUD_STAGING_URL to another",
    "NETWORK_CONNECTION": "is the server up, and the address in the connection aws_default right?",
}
_first_use = threading.Lock()
_MEND = "where its batch is not published yet, clear the run's plan task: the run drains these payments again"


def decode(data: bytes, kind: type[_Kind]) -> _Kind:
    """Raises msgspec.DecodeError."""
    # msgspec makes a type ready at its first use. Where two threads do so at once, one of them crashes the process.
    with _first_use:
        decoder = msgspec.json.Decoder(kind)
    return decoder.decode(data)


class Storage:
    def __init__(self, filesystem: FileSystem, root: str, url: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._local = filesystem.type_name == "local"
        self.url = url

    @classmethod
    def open(cls, url: str, access: S3Access | None = None) -> Storage:
        """Without `access` the environment says how to reach S3. Raises SettingError where the URL cannot be used,
        StagingError where the place cannot be reached."""
        url = whole_url(url, _SETTING)
        try:
            filesystem, root = open_url(url, _SETTING, access)
        except OSError as error:
            raise _failure(f"{url} cannot be opened", error) from error
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
                f"staging folder {folder} cannot be made: {error.strerror}: set FRAUD_STAGING_URL to a place where "
                "this user may write"
            ) from error

    def require_bucket(self) -> None:
        """Raises StagingError where it is missing: Amazon's S3 would not make it, as others do. Unseen, it is left to
        the first write."""
        from pyarrow.fs import FileType

        if self._local:
            return
        try:
            found = self._filesystem.get_file_info(self._root.partition("/")[0])
        except OSError:
            return
        if found.type == FileType.NotFound:
            raise StagingError(f"{self.url}: {_HINTS['NO_SUCH_BUCKET']}")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def write(self, path: str, data: Any) -> None:
        """`data`: bytes or anything with the buffer protocol."""
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
                    # After the commit to Kafka this file alone holds the report: it and its name must outlive a power
                    # cut.
                    os.fsync(file.fileno())
                part.replace(target)
                _sync_folder(Path(target).parent)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            raise _failure(f"cannot write {path} to {self.url}", error, full) from error

    def read(self, path: str) -> bytes | None:
        """None where there is no such file. Raises StagedFileDamagedError where it is not what was written."""
        try:
            with self._filesystem.open_input_stream(self._path(path)) as stream:
                sealed: bytes = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(f"cannot read {path} from {self.url}", error) from error
        data = sealed[:-_SEAL_BYTES]
        if sealed[-_SEAL_BYTES:] != _seal(data):
            raise StagedFileDamagedError(f"{path} in {self.url} is damaged; {_MEND}")
        return data

    def need(self, path: str) -> bytes:
        """Raises StagedFileGoneError where there is no such file."""
        data = self.read(path)
        if data is None:
            raise StagedFileGoneError(
                f"{path} is missing from {self.url}. Either newer runs have taken over this batch's unpublished "
                "payments (nothing needs to be done), or it was removed by hand or after FRAUD_STAGING_HOURS, or this "
                "worker does not share the staging area with the one that wrote it (set FRAUD_STAGING_URL to s3://…)"
            )
        return data

    def need_json(self, path: str, kind: type[_Kind]) -> _Kind:
        """Raises as `need`, and StagedFileDamagedError where the file is of another kind."""
        try:
            return decode(self.need(path), kind)
        except msgspec.DecodeError as error:
            raise StagedFileDamagedError(
                f"{path} in {self.url} was not written by this version of the product ({error}); {_MEND}"
            ) from error

    def delete(self, path: str) -> None:
        """A file or a whole folder; nothing happens where there is none."""
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
        """Names of the files and folders directly in `folder`, sorted; none where there is no such folder."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        try:
            found = self._filesystem.get_file_info(selector)
        except FileNotFoundError:
            # Another shard has made it just now: Arrow opens a local folder first, and then asks whether it is there.
            return []
        except OSError as error:
            raise _failure(f"cannot list {folder} in {self.url}", error) from error
        return sorted(info.base_name for info in found if not info.base_name.endswith(".part"))


def _sync_folder(folder: Path) -> None:
    """So that a power cut does not take the file's name."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _seal(data: Any) -> bytes:
    return b"\n" + hashlib.sha256(data).hexdigest()[:32].encode()


def _failure(what: str, error: OSError, more: str = "") -> StagingError:
    code = aws_error(error)
    kind = StagingAccessError if code in WRONG_KEYS else StagingError
    return kind(f"{what}: {first_line(error)}{more}" + (f": {_HINTS[code]}" if code in _HINTS else ""))
