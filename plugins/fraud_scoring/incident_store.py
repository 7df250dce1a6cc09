"""Store incidents in the staging area, which all workers share, or on this machine while that fails or is full."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from airflow.sdk.configuration import conf

from fraud_scoring.airflow_connections import staging
from include.batch.dead_letter_counts import CountedBatches, DeadLetterCounts, DeadLetterFile
from include.errors import FraudError
from include.report.incident import Failure, Incident
from include.report.incident_files import IncidentFiles
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_OpenStorage = Callable[[], Storage]


class IncidentStore:
    """Incidents of one DAG. No method raises an error, so that a mail is sent even if nothing can be stored."""

    def __init__(self, settings: Settings, dag_id: str) -> None:
        self._storages: list[_OpenStorage] = [partial(staging, settings), _temporary_folder]
        self._installation, self._dag_id = installation(settings), dag_id

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        """Store the failure and return its incident as `IncidentFiles.add` does, a new one if nothing can be stored."""
        added = self._in_first(self._storages, lambda files: files.add(failure, quiet=quiet))
        return added or Incident.from_failure(failure)

    def last(self, what: str) -> Incident | None:
        """Return the newest stored incident of all storages: a full staging area can still be read."""
        found = [self._in_first([storage], lambda files: files.last(what)) for storage in self._storages]
        return max(filter(None, found), key=lambda incident: incident.told or incident.last, default=None)

    def record_mail(self, failure: Failure, incident: Incident) -> None:
        """Record that a mail server has accepted the mail about the incident."""
        self._in_first(self._storages, lambda files: files.record_mail(failure, incident))

    def has(self, what: str, run_id: str) -> bool:
        """Return whether any storage has a failure of the task in this run."""
        return any(self._in_first([storage], lambda files: files.has(what, run_id)) for storage in self._storages)

    def close(self, what: str, map_index: int = -1) -> bool:
        """Close the incident in all storages, and return whether one was open."""
        closed = [self._in_first([storage], lambda files: files.close(what, map_index)) for storage in self._storages]
        return any(closed)

    def update_dead_letter_counts(self, batch_id: str, counts: DeadLetterCounts | None) -> CountedBatches | None:
        """Add a batch's dead letters to the stored counts and return all of them, or None if nothing can be stored.

        If `counts` is None, delete the stored counts and return None.
        """
        if counts is not None:
            return self._in_first(self._storages, lambda files: _dead_letters(files).add(batch_id, counts))
        for storage in self._storages:
            self._in_first([storage], lambda files: _dead_letters(files).clear())
        return None

    def _in_first(self, storages: Iterable[_OpenStorage], do: Callable[[IncidentFiles], _Result]) -> _Result | None:
        """Call `do` in the first storage that works and return its result, or None if none works."""
        for storage in storages:
            try:
                return do(IncidentFiles(storage(), self._installation, self._dag_id))
            except Exception as error:
                # S3 raises errors of several libraries.
                reason = error if isinstance(error, FraudError) else type(error).__name__
                log.warning(
                    "cannot store incidents in %s: %s",
                    "the temporary folder" if storage is _temporary_folder else "the staging area",
                    reason,
                )
        return None


def installation(settings: Settings) -> str:
    """Return the name that separates this Airflow's incidents from those of another one on the same staging area."""
    base_url = conf.get("api", "base_url", fallback="")
    return f"{settings.installation or base_url} {settings.group}"


def _dead_letters(files: IncidentFiles) -> DeadLetterFile:
    return DeadLetterFile(files.storage, f"{files.folder}/dead_letter_counts.json")


def _temporary_folder() -> Storage:
    return Storage.open(str(Path(gettempdir(), f"fraud_incidents_{os.getuid()}")))
