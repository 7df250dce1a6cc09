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
from include.report.incident import Failure, Incident, Incidents
from include.settings import Settings
from include.storage.staging import Storage

log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_Place = Callable[[], Storage]


class KeptIncidents:
    """Incidents whose storage may fail: no method raises an error, so that a mail is sent even if nothing can be
    stored."""

    def __init__(self, settings: Settings, dag_id: str) -> None:
        self._places: list[_Place] = [partial(staging, settings), _local]
        self._installation, self._dag_id = installation(settings), dag_id

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        return self._in_first(self._places, lambda incidents: incidents.add(failure, quiet=quiet)) or Incident.of(
            failure
        )

    def last(self, what: str) -> Incident | None:
        """Return the newest stored incident: a full staging area can still be read."""
        found = [self._in_first([place], lambda incidents: incidents.last(what)) for place in self._places]
        return max(filter(None, found), key=lambda incident: incident.told or incident.last, default=None)

    def record_mail(self, failure: Failure, incident: Incident) -> None:
        self._in_first(self._places, lambda incidents: incidents.record_mail(failure, incident))

    def has(self, what: str, run_id: str) -> bool:
        return any(self._in_first([place], lambda incidents: incidents.has(what, run_id)) for place in self._places)

    def close(self, what: str, map_index: int) -> bool:
        closed = [self._in_first([place], lambda incidents: incidents.close(what, map_index)) for place in self._places]
        return any(closed)

    def count_dead_letters(self, batch_id: str, counts: DeadLetterCounts | None) -> CountedBatches | None:
        """Count a batch's dead letters, and return all batches counted so far; None if nothing can be stored. Without
        counts, delete the counts."""
        if counts is not None:
            return self._in_first(self._places, lambda incidents: _dead_letters(incidents).add(batch_id, counts))
        for place in self._places:
            self._in_first([place], lambda incidents: _dead_letters(incidents).clear())
        return None

    def _in_first(self, places: Iterable[_Place], do: Callable[[Incidents], _Answer]) -> _Answer | None:
        """Call `do` in the first storage that works, and return its result; None if none works."""
        for place in places:
            try:
                return do(Incidents(place(), self._installation, self._dag_id))
            except Exception as error:
                # S3 fails with errors of several libraries.
                reason = error if isinstance(error, FraudError) else type(error).__name__
                log.warning(
                    "cannot store incidents in %s: %s",
                    "the temporary folder" if place is _local else "the staging area",
                    reason,
                )
        return None


def installation(settings: Settings) -> str:
    """Return the name that separates this Airflow's incidents from those of another one on the same staging area."""
    base_url = conf.get("api", "base_url", fallback="")
    return f"{settings.installation or base_url} {settings.group}"


def _dead_letters(incidents: Incidents) -> DeadLetterFile:
    return DeadLetterFile(incidents.storage, f"{incidents.folder}/dead_letter_counts.json")


def _local() -> Storage:
    return Storage.open(str(Path(gettempdir(), f"fraud_incidents_{os.getuid()}")))
