"""Make and read batch ids, such as 20261124T112233Z-4f9a01, and name the folders of batches in the staging area."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import uuid4


def new_batch_id(now: datetime) -> str:
    """Return a new id: the UTC time to the second, which makes ids sort by time, and six random hex digits."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def is_batch_id(text: str) -> bool:
    """Return whether the text is a batch id. A commit note's `batch` may be another text, or empty."""
    return re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", text) is not None


def folder_of(batch_id: str) -> str:
    """Return a batch's folder, which lies in a folder of its hour: old batches are found without listing all."""
    return f"batches/{hour_of(batch_id)}/{batch_id}"


def hour_of(batch_id: str) -> str:
    """Return the hour of a batch id, such as 20261124T11."""
    return batch_id[:11]
