"""Mount a disk of a few kilobytes that a test can fill or make read-only. Needs root, or sudo without a password."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096
_FILLER = "filler"


def as_root(*words: str) -> bool:
    command = words if os.geteuid() == 0 else ("sudo", "-n", *words)
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class SmallDisk:
    folder: Path

    @contextmanager
    def full(self, free_pages: int = 0) -> Iterator[None]:
        """Fill the disk except for the given number of pages."""
        filler = self.folder / _FILLER
        free = os.statvfs(self.folder).f_bavail * PAGE
        filler.write_bytes(b"x" * (free - free_pages * PAGE))
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        assert as_root("mount", "-o", "remount,ro", str(self.folder))
        try:
            yield
        finally:
            assert as_root("mount", "-o", "remount,rw", str(self.folder))


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    folder.mkdir(parents=True)
    options = f"size={kilobytes}k,mode=700,uid={os.getuid()},gid={os.getgid()}"
    if not as_root("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
        pytest.skip("no small disk can be mounted here: that takes root")
    try:
        yield SmallDisk(folder)
    finally:
        as_root("umount", "--lazy", str(folder))
