"""Models on this machine's disk: downloaded once, shared by all tasks, within a bound.

Each entry has two lock files, which the operating system unlocks when a process ends, however it ends: `.download` is
held while the entry is fetched, `.use` is shared by every process that uses it. An entry appears by
an atomic rename, so what is there is whole; its files' digests are kept, to notice what was damaged later.
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
# Entries that this process uses, with the lock that says so to the others.
_IN_USE: dict[Path, int] = {}


class ModelCache:
    """`max_bytes` bounds all entries together; the model just fetched and those in use are kept even beyond it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    @classmethod
    def of(cls, settings: Settings) -> ModelCache:
        return cls(settings.model_cache, int(settings.model_cache_gb * 1e9))

    def trim(self) -> int:
        """As each download does. How many models were evicted."""
        try:
            return self._tidy("") if self.folder.is_dir() else 0
        except OSError as error:
            raise ModelStoreError(f"the model cache {self.folder} cannot be used: {error}") from error

    def fetch(self, run: ModelRun) -> Path:
        """The folder with the model's files. It stays until this process ends."""
        try:
            self._make_folders()
            return self._fetch(run)
        except (OSError, ModelStoreError) as error:
            if is_full_disk(error):
                raise ModelStoreError(
                    f"the disk of the model cache {self.folder} is full, the model of run {run.run_id} does not fit: "
                    "free space, or set FRAUD_MODEL_CACHE to another disk or FRAUD_MODEL_CACHE_GB lower"
                ) from error
            if isinstance(error, ModelStoreError):
                raise
            raise ModelStoreError(f"the model cache {self.folder} cannot be used: {error}") from error

    def _fetch(self, run: ModelRun) -> Path:
        key = run.cache_key
        entry = self.folder / key
        if entry not in _IN_USE:
            # filelock has no shared flock: its ReadWriteLock is an SQLite database.
            _IN_USE[entry] = os.open(self._lock_path(key, "use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(_IN_USE[entry], fcntl.LOCK_SH)
        if not _is_whole(entry):
            with self._lock(key, "download"):
                if not _is_whole(entry):
                    self._download(run, entry)
                    log.info("model of run %s downloaded, %d bytes", run.run_id, _size(entry))
            self._tidy(key)
        os.utime(entry)
        return entry

    def _download(self, run: ModelRun, entry: Path) -> None:
        self._remove_leftovers(run.cache_key)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{run.cache_key}-", dir=self.folder))
        try:
            new = folder / "new"
            new.mkdir()
            ModelStore().download(run.model_uri, new)
            root = _root(new)
            if root is None:
                raise ModelNotFoundError(f"run {run.run_id}: no MLmodel file among what lies at {run.model_uri}")
            for foreign in root.glob(pickle_cache.FILE_PATTERN):
                # Taken for our own, it would be unpickled.
                foreign.rename(folder / foreign.name)
            _write_digests(root)
            if entry.exists():
                # Damaged: aside first, for a removal is not atomic.
                entry.rename(folder / "damaged")
            root.rename(entry)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _tidy(self, key: str) -> int:
        """Removes what interrupted downloads left, then the least recently used entries beyond the bound: how many."""
        for leftover in self.folder.glob(f"{_PREFIX}*"):
            other = leftover.name.removeprefix(_PREFIX).rsplit("-", 1)[0]
            with self._tried(other, "download") as free:
                if free:
                    shutil.rmtree(leftover, ignore_errors=True)
        entries = list(self._entries())
        total, evicted = sum(size for _, size, _ in entries), 0
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            if path.name == key:
                continue
            with self._tried(path.name, "use") as unused:
                if not unused:
                    continue
                # Of the download too: another task's tidying takes what it finds aside for a leftover, unless that is
                # held. Only then: one that cannot have the entry must not keep it from the task that can.
                with self._tried(path.name, "download") as free:
                    if not free:
                        continue
                    # Another task that tidies may have been faster.
                    if path.exists():
                        aside = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{path.name}-", dir=self.folder))
                        path.rename(aside / "evicted")
                        shutil.rmtree(aside, ignore_errors=True)
                        log.info("model %s evicted from the cache, %d bytes", path.name, size)
                        evicted += 1
                total -= size
        return evicted

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """With the time of last use, in seconds, and the size in bytes."""
        for path in self.folder.iterdir():
            if path.name.startswith((_PREFIX, ".")) or not path.is_dir():
                continue
            try:
                yield path.stat().st_mtime, _size(path), path
            except FileNotFoundError:
                # Put aside just now, as damaged or by another task that tidies.
                continue

    def _remove_leftovers(self, key: str) -> None:
        for leftover in self.folder.glob(f"{_PREFIX}{key}-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _make_folders(self) -> None:
        (self.folder / ".locks").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def _lock_path(self, key: str, purpose: str) -> Path:
        return self.folder / ".locks" / f"{key}.{purpose}"

    def _lock(self, key: str, purpose: str) -> FileLock:
        # A soft lock would outlive a process that is killed.
        return FileLock(self._lock_path(key, purpose), mode=0o600, fallback_to_soft=False)

    @contextmanager
    def _tried(self, key: str, purpose: str) -> Iterator[bool]:
        """Yield whether the lock is free, and hold it meanwhile."""
        lock = self._lock(key, purpose)
        with suppress(Timeout):
            lock.acquire(blocking=False)
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _root(folder: Path) -> Path | None:
    """Where MLmodel is: MLflow may put a model into the folder, or into one of the model's name in it."""
    return next((path.parent for path in [folder / "MLmodel", *folder.glob("*/MLmodel")] if path.is_file()), None)


def _files(entry: Path) -> list[Path]:
    return [path for path in sorted(entry.rglob("*")) if path.is_file() and path.name != _DIGESTS]


def _write_digests(entry: Path) -> None:
    (entry / _DIGESTS).write_text(json.dumps({str(path.relative_to(entry)): _digest(path) for path in _files(entry)}))


def _is_whole(entry: Path) -> bool:
    """Also false where a disk or somebody's tool changed a file; what was added since (bytecode) does not matter."""
    try:
        expected = json.loads((entry / _DIGESTS).read_text())
        # A file of a name that only ours have was downloaded before such were put aside.
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
