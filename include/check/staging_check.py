"""Check the staging area: write, read and delete a file, as a run does."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from include.check.check_result import CheckResult
from include.errors import StagingError
from include.storage.staging import Storage


def check_staging(storage: Storage) -> Iterator[CheckResult]:
    """Yield a result for the staging area. Raise StagingError if it cannot be used."""
    storage.require_bucket()
    path, content = f"check-{uuid4().hex}", b"fraud check"
    storage.write(path, content)
    try:
        if storage.read(path) != content:
            raise StagingError(
                f"a file was written to {storage.url} and could not be read again: check that no other program changes "
                "files there"
            )
    finally:
        storage.delete(path)
    yield CheckResult("staging", f"{storage.url} can be written, read and cleaned")
