"""Remove old files from Airflow's log folder, and the folders that become empty."""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from include.errors import HousekeepingError
from include.housekeeping.command import airflow

# Airflow 3.3 writes to folders with these prefixes. Other files of the folder, which may be /var/log, stay.
_PREFIXES = ("dag_id=", "dag_processor", "executor_callbacks")


@dataclass(frozen=True)
class RemovedLogs:
    """How many files were removed, and their bytes in total."""

    files: int
    bytes: int


def log_folder() -> Path:
    """Return Airflow's log folder. A task reads it from Airflow's configuration instead, without another process."""
    return Path(airflow("config", "get-value", "logging", "base_log_folder").strip().splitlines()[-1]).expanduser()


def trim_logs(folder: Path, days: float) -> RemovedLogs:
    """Remove files that were last written more than `days` ago: no task still writes to them.

    Links are neither followed nor removed. Raise HousekeepingError at the end if something could not be removed.
    """
    logs = _OldLogs(time.time() - days * 86_400)
    for entry in logs.entries(folder):
        if entry.name.startswith(_PREFIXES) and entry.is_dir() and not entry.is_symlink():
            logs.remove(entry)
    if logs.failures:
        raise HousekeepingError(
            f"cannot read or remove {len(logs.failures)} files and folders of {folder}, {logs.files} were removed; "
            f"the first is {logs.failures[0]}: check its owner and mode"
        )
    return RemovedLogs(logs.files, logs.bytes)


class _OldLogs:
    def __init__(self, oldest_kept: float) -> None:
        self._oldest_kept = oldest_kept
        self.files = self.bytes = 0
        self.failures: list[str] = []

    def entries(self, folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except FileNotFoundError:
            # Nothing was logged yet, or another machine trims the same folder.
            return []
        except OSError as error:
            self.failures.append(f"{folder} ({error.strerror})")
            return []

    def remove(self, folder: Path) -> None:
        # Read the time first, because removing entries changes it. A task may be about to write to a new folder.
        with suppress(FileNotFoundError):
            is_old = folder.lstat().st_mtime < self._oldest_kept
            for entry in self.entries(folder):
                self._remove_entry(entry)
            if is_old and not self.entries(folder):
                folder.rmdir()

    def _remove_entry(self, entry: Path) -> None:
        with suppress(FileNotFoundError):
            status = entry.lstat()
            if stat.S_ISDIR(status.st_mode):
                self.remove(entry)
            elif stat.S_ISREG(status.st_mode) and status.st_mtime < self._oldest_kept:
                self._remove_file(entry, status.st_size)

    def _remove_file(self, file: Path, size: int) -> None:
        try:
            file.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            self.failures.append(f"{file} ({error.strerror})")
            return
        self.files += 1
        self.bytes += size
