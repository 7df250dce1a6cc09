"""Store the incidents of a DAG: one small file for each task in the staging area."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import msgspec

from include.errors import StagedFileDamagedError
from include.report.incident import Cause, Failure, Incident
from include.storage.staging import Storage

FOLDER = "incidents"
# Names of errors that an earlier version stored, and their present names.
_RENAMED_CAUSES = {"KafkaError": "ClusterError", "KafkaAccessError": "ClusterAccessError"}


class IncidentFiles:
    """The incidents of one DAG of one installation. Several installations may share a storage."""

    def __init__(self, storage: Storage, installation: str, dag_id: str) -> None:
        self.storage = storage
        self.folder = f"{FOLDER}/{hashlib.sha256(installation.encode()).hexdigest()[:12]}/{quote(dag_id, safe='')}"

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        """Store the failure, and return the incident that it belongs to. `quiet`: as in `Incident.is_open`."""
        stored = self.last(failure.what)
        incident = Incident.from_failure(failure) if stored is None else stored.next(failure, quiet)
        self._write(failure.what, incident)
        return incident

    def has(self, what: str, run_id: str) -> bool:
        """Return whether a failure of the task in this run is stored already."""
        stored = self.last(what)
        return stored is not None and run_id in stored.run_ids

    def record_mail(self, failure: Failure, incident: Incident) -> None:
        """Record that a mail server has accepted the mail about the incident."""
        self._write(failure.what, incident.with_mail(failure.at))

    def close(self, what: str, map_index: int = -1) -> bool:
        """Close the task's open incident, and return whether there was one.

        The success of another instance of a mapped task does not close it, but any success closes the incident of a
        task that an earlier version did not map.
        """
        stored = self.last(what)
        if stored is None or stored.is_over or stored.map_index not in (-1, map_index):
            return False
        # The file stays: a run may ask later whether its failure was mailed.
        self._write(what, replace(stored, is_over=True))
        return True

    def last(self, what: str) -> Incident | None:
        """Return the task's last incident, which may be closed, or None if none is stored or its file is damaged."""
        try:
            # An earlier version stored them by task only.
            data = self.storage.read(f"{self.folder}/{_file(what)}") or self.storage.read(f"{FOLDER}/{_file(what)}")
            return _with_present_names(msgspec.json.decode(data, type=Incident)) if data else None
        except (StagedFileDamagedError, msgspec.MsgspecError):
            # One mail too many is better than none.
            return None

    def _write(self, what: str, incident: Incident) -> None:
        self.storage.write(f"{self.folder}/{_file(what)}", msgspec.json.encode(incident))


def _with_present_names(incident: Incident) -> Incident:
    """Return the incident with the present names of its causes."""

    def renamed(causes: Mapping[str, Cause]) -> dict[str, Cause]:
        return {_RENAMED_CAUSES.get(name, name): cause for name, cause in causes.items()}

    cause = _RENAMED_CAUSES.get(incident.cause, incident.cause)
    return replace(incident, cause=cause, causes=renamed(incident.causes), held_back=renamed(incident.held_back))


def _file(what: str) -> str:
    return f"{quote(what, safe='')}.json"
