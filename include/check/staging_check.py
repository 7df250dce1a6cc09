"""The staging area: what a run will write there, read and remove."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from include.check.check_result import CheckResult
from include.errors import StagingError
from include.storage.staging import Storage


def check_staging(storage: Storage) -> Iterator[CheckResult]:
    storage.require_bucket()
    path, content = f"check-{uuid4().hex}", b"fraud check"
    storage.write(path, content)
    try:
        if storage.read(path) != content:
            raise StagingError(f"what was written to {storage.url} does not come back")
    finally:
        storage.delete(path)
    yield CheckResult("staging", f"{storage.url} can be written, read and cleaned")
