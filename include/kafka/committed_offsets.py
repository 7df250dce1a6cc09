"""A committed offset, and the commit note in its metadata that says which batch committed it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

# Begins the text in a commit note of an offset that an operator has set; the name of the operator follows.
SET_BY_OPERATOR = "set by operator "


class CommitNote(msgspec.Struct, frozen=True):
    """The metadata of a committed offset, as JSON.

    `batch` is the id of the batch that committed the offset, or a text that names the operator who set it. It is empty
    if this product only refreshed an offset that another program had committed. `topic_id` is the topic's id at that
    time, `at` the time in ISO 8601.
    """

    batch: str
    topic_id: str
    at: str

    @classmethod
    def decode(cls, metadata: str | None) -> CommitNote | None:
        """Return the note, or None if another program wrote the metadata."""
        if not metadata:
            return None
        try:
            return msgspec.json.decode(metadata, type=cls)
        except msgspec.DecodeError:
            return None

    def encode(self) -> str:
        """Return the note as metadata."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class CommittedOffset:
    """The committed offset of one partition, with its commit note.

    `offset` is None if the partition has no committed offset. `note` is None then, and also if another program
    committed the offset.
    """

    offset: int | None
    note: CommitNote | None = None

    @property
    def batch(self) -> str | None:
        """Return the batch that the note names, None without a note."""
        return self.note.batch if self.note else None
