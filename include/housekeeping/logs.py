"""Airflow's log folder: files that are older than their time go, and the folders that this leaves empty."""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from include.errors import HousekeepingError
from include.housekeeping.command import airflow

# What Airflow 3.3 keeps there. Of a folder that holds other things too, say /var/log, they stay.
_AIRFLOWS = ("dag_id=", "dag_processor", "executor_callbacks")


@dataclass(frozen=True)
class Trimmed:
    files: int
    bytes: int


def log_folder() -> Path:
    """For whoever is no task, which knows by itself."""
    return Path(airflow("config", "get-value", "logging", "base_log_folder").strip().splitlines()[-1]).expanduser()


def trim_logs(folder: Path, days: float) -> Trimmed:
    """Removes files that were last written more than `days` ago: no task still writes to them. Links are neither
    followed nor removed. Raises HousekeepingError at the end where something could not be removed."""
    logs = _OldLogs(time.time() - days * 86_400)
    for entry in logs.entries(folder):
        if entry.name.startswith(_AIRFLOWS) and entry.is_dir() and not entry.is_symlink():
            logs.remove(entry)
    if logs.refused:
        raise HousekeepingError(
            f"{len(logs.refused)} files and folders of {folder} cannot be read or removed, the first is "
            f"{logs.refused[0]}: whose is it? {logs.files} others were removed"
        )
    return Trimmed(logs.files, logs.bytes)


class _OldLogs:
    def __init__(self, oldest_kept: float) -> None:
        self._oldest_kept = oldest_kept
        self.files = self.bytes = 0
        self.refused: list[str] = []

    def entries(self, folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except FileNotFoundError:
            # Nothing was logged yet, or another machine that shares the folder trims it too.
            return []
        except OSError as error:
            self.refused.append(f"{folder} ({error.strerror})")
            return []

    def remove(self, folder: Path) -> None:
        # A young one may be about to get its first file. Asked before its own entries go, which makes it young.
        with suppress(FileNotFoundError):
            is_old = folder.lstat().st_mtime < self._oldest_kept
            for entry in self.entries(folder):
                self._remove_entry(entry)
            if is_old and not self.entries(folder):
                folder.rmdir()

    def _remove_entry(self, entry: Path) -> None:
        with suppress(FileNotFoundError):
            found = entry.lstat()
            if stat.S_ISDIR(found.st_mode):
                self.remove(entry)
            elif stat.S_ISREG(found.st_mode) and found.st_mtime < self._oldest_kept:
                self._remove_file(entry, found.st_size)

    def _remove_file(self, file: Path, size: int) -> None:
        try:
            file.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            self.refused.append(f"{file} ({error.strerror})")
            return
        self.files += 1
        self.bytes += size
