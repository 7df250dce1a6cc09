"""Keep models on this machine's disk: each is downloaded once and shared by all tasks, up to a total size.

Each entry has two lock files. A process holds `.download` while it downloads the entry, and shares `.use` with the
other processes that use it; the operating system releases both even when a process is killed. An atomic rename puts a
complete entry in place, and the stored digests of its files show later damage.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from include.errors import ModelNotFoundError, ModelStoreError
from include.models import pickle_cache
from include.models.mlflow_client import ModelStore
from include.models.mlflow_errors import is_full_disk
from include.models.model_run import ModelRun
from include.settings import Settings

log = logging.getLogger(__name__)

_DIGESTS = ".digests.json"
_PREFIX = "download-"
# The entries that this process uses, with the file descriptor of the shared lock.
_IN_USE: dict[Path, int] = {}


class ModelCache:
    """A folder of downloaded models.

    `max_bytes` limits the size of all entries together. The model that was just downloaded and models in use are kept
    even beyond it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelCache:
        """Return the cache that FRAUD_MODEL_CACHE and FRAUD_MODEL_CACHE_GB describe."""
        return cls(settings.model_cache, int(settings.model_cache_gb * 1e9))

    def trim(self) -> int:
        """Evict models as each download does, and return their number. Raise ModelStoreError if the disk fails."""
        try:
            return self._evict("") if self.folder.is_dir() else 0
        except OSError as error:
            raise ModelStoreError(f"the model cache {self.folder} cannot be used: {error}") from error

    def fetch(self, run: ModelRun) -> Path:
        """Return the folder with the model's files, downloading them if necessary; it stays until this process ends.

        Raise ModelStoreError if the disk or the download fails, and ModelNotFoundError if there is no model.
        """
        try:
            self._make_folders()
            return self._fetch(run)
        except (OSError, ModelStoreError) as error:
            if is_full_disk(error):
                raise ModelStoreError(
                    f"the disk of the model cache {self.folder} is full: the model of run {run.run_id} does not fit; "
                    "free space, or set FRAUD_MODEL_CACHE to another disk or FRAUD_MODEL_CACHE_GB lower"
                ) from error
            if isinstance(error, ModelStoreError):
                raise
            raise ModelStoreError(f"the model cache {self.folder} cannot be used: {error}") from error

    def _fetch(self, run: ModelRun) -> Path:
        key = run.cache_key
        entry = self.folder / key
        if entry not in _IN_USE:
            # filelock has no shared flock: its ReadWriteLock needs an SQLite database.
            _IN_USE[entry] = os.open(self._lock_path(key, "use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(_IN_USE[entry], fcntl.LOCK_SH)
        if not _is_intact(entry):
            with self._lock(key, "download"):
                if not _is_intact(entry):
                    self._download(run, entry)
                    log.info("model of run %s downloaded, %d bytes", run.run_id, _size(entry))
            self._evict(key)
        os.utime(entry)
        return entry

    def _download(self, run: ModelRun, entry: Path) -> None:
        for leftover in self.folder.glob(f"{_PREFIX}{run.cache_key}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{run.cache_key}-", dir=self.folder))
        try:
            new = folder / "new"
            new.mkdir()
            ModelStore().download(run.model_uri, new)
            root = _model_root(new)
            if root is None:
                raise ModelNotFoundError(
                    f"run {run.run_id}: {run.model_uri} has no MLmodel file. Log the model again, or choose another"
                )
            for foreign in root.glob(pickle_cache.FILE_PATTERN):
                # The pickle cache would take a file of this name for its own, and unpickle it.
                foreign.rename(folder / foreign.name)
            _write_digests(root)
            if entry.exists():
                # The entry is damaged. It is moved first, because a removal is not atomic.
                entry.rename(folder / "damaged")
            root.rename(entry)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _evict(self, kept_key: str) -> int:
        """Remove the files of interrupted downloads, then the least recently used entries beyond `max_bytes`.

        The entry `kept_key` stays. Return the number of evicted entries.
        """
        for leftover in self.folder.glob(f"{_PREFIX}*"):
            key = leftover.name.removeprefix(_PREFIX).rsplit("-", 1)[0]
            with self._try_lock(key, "download") as is_locked:
                if is_locked:
                    shutil.rmtree(leftover, ignore_errors=True)
        entries = list(self._entries())
        total, evicted = sum(size for _, size, _ in entries), 0
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            if path.name == kept_key:
                continue
            with self._try_lock(path.name, "use") as is_unused:
                if not is_unused:
                    continue
                # Without this lock, another task that evicts would take the moved entry for an interrupted download.
                # It comes second, so that a task that cannot evict the entry does not block the task that can.
                with self._try_lock(path.name, "download") as is_locked:
                    if not is_locked:
                        continue
                    # Another task may have evicted it already.
                    if path.exists():
                        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{path.name}-", dir=self.folder))
                        path.rename(folder / "evicted")
                        shutil.rmtree(folder, ignore_errors=True)
                        log.info("model %s evicted from the cache, %d bytes", path.name, size)
                        evicted += 1
                total -= size
        return evicted

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield each entry's time of last use (seconds since 1970), its size in bytes, and its folder."""
        for path in self.folder.iterdir():
            if path.name.startswith((_PREFIX, ".")) or not path.is_dir():
                continue
            try:
                yield path.stat().st_mtime, _size(path), path
            except FileNotFoundError:
                # Another task has just moved it, because it is damaged or evicted.
                continue

    def _make_folders(self) -> None:
        (self.folder / ".locks").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def _lock_path(self, key: str, purpose: str) -> Path:
        return self.folder / ".locks" / f"{key}.{purpose}"

    def _lock(self, key: str, purpose: str) -> FileLock:
        # A soft lock would outlive a killed process.
        return FileLock(self._lock_path(key, purpose), mode=0o600, fallback_to_soft=False)

    @contextmanager
    def _try_lock(self, key: str, purpose: str) -> Iterator[bool]:
        """Hold the lock if it is free, and yield whether it was."""
        lock = self._lock(key, purpose)
        with suppress(Timeout):
            lock.acquire(blocking=False)
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _model_root(folder: Path) -> Path | None:
    """Return the folder with the MLmodel file: `folder`, or the subfolder that MLflow makes for the model."""
    return next((path.parent for path in [folder / "MLmodel", *folder.glob("*/MLmodel")] if path.is_file()), None)


def _files(entry: Path) -> list[Path]:
    return [path for path in sorted(entry.rglob("*")) if path.is_file() and path.name != _DIGESTS]


def _write_digests(entry: Path) -> None:
    (entry / _DIGESTS).write_text(json.dumps({str(path.relative_to(entry)): _digest(path) for path in _files(entry)}))


def _is_intact(entry: Path) -> bool:
    """Return whether the entry exists and none of its files has changed. Added files (bytecode) do not matter."""
    try:
        expected = json.loads((entry / _DIGESTS).read_text())
        # An earlier version of the product kept a downloaded file with a name of the pickle cache.
        if "MLmodel" not in expected or any(fnmatch(name, pickle_cache.FILE_PATTERN) for name in expected):
            return False
        return all(_digest(entry / name) == digest for name, digest in expected.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(entry: Path) -> int:
    try:
        return sum(path.stat().st_size for path in _files(entry))
    except OSError:
        return 0
