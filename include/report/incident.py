"""What is broken, and when operators were last told: one small file a task in the staging area.

The first failure is told, then nothing while the same thing stays broken, but for a reminder now and then. Another
cause is told again, and so is the same cause after the task has succeeded in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import quote

import msgspec

from include.batch.storage import Storage
from include.errors import FraudError, StagedFileDamagedError

FOLDER = "incidents"
_LONGEST_DETAIL = 300
_RUNS_KEPT = 20
# A mail a minute that no server took, for three hours.
_DETAILS_KEPT = 200


@dataclass(frozen=True)
class Failure:
    """`what`: a task, or a run that is late. `cause` names the kind of error, `detail` says it in one line."""

    what: str
    cause: str
    detail: str
    dag_id: str
    run_id: str
    url: str
    at: datetime
    try_number: int | None = None
    map_index: int = -1


@dataclass(frozen=True)
class Incident:
    """The same thing failing since `since`. `run_ids`: where it failed of late, this and the incidents before;
    `map_index`: where it failed last; `details`: what was said of it, and whether a mail told it."""

    cause: str
    since: datetime
    last: datetime
    failures: int = 1
    told: datetime | None = None
    run_ids: tuple[str, ...] = ()
    map_index: int = -1
    is_over: bool = False
    details: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, failure: Failure) -> Self:
        """A new one."""
        return cls(
            failure.cause,
            failure.at,
            failure.at,
            run_ids=(failure.run_id,),
            map_index=failure.map_index,
            details={failure.detail: False},
        )

    @property
    def untold(self) -> str:
        return " ".join(detail for detail, told in self.details.items() if not told)

    def with_detail(self, detail: str) -> dict[str, bool]:
        details = self.details | {detail: self.details.get(detail, False)}
        return dict(list(details.items())[-_DETAILS_KEPT:])

    def is_due(self, reminder: timedelta) -> bool:
        return self.told is None or self.last - self.told >= reminder

    def lasts(self, failure: Failure, quiet: timedelta | None) -> bool:
        """Whether the failure is one more of it. After `quiet` without one, an incident is over."""
        if self.is_over or self.cause != failure.cause:
            return False
        return quiet is None or failure.at - self.last <= quiet


class Incidents:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        """The incident that this failure belongs to, itself counted. `quiet`: as `Incident.lasts` has it."""
        known = self._read(failure.what)
        run_ids = (*(known.run_ids if known else ()), failure.run_id)[-_RUNS_KEPT:]
        incident = replace(Incident.of(failure), run_ids=run_ids)
        if known is not None and known.lasts(failure, quiet):
            incident = replace(
                incident,
                since=known.since,
                failures=known.failures + 1,
                told=known.told,
                details=known.with_detail(failure.detail),
            )
        self._write(failure.what, incident)
        return incident

    def has(self, what: str, run_id: str) -> bool:
        """Whether its failure in this run was counted already."""
        known = self._read(what)
        return known is not None and run_id in known.run_ids

    def told(self, failure: Failure, incident: Incident) -> None:
        """To be called once a mail server has accepted the mail."""
        self._write(failure.what, replace(incident, told=failure.at, details=dict.fromkeys(incident.details, True)))

    def last(self, what: str) -> Incident | None:
        """It may be over."""
        return self._read(what)

    def over(self, what: str, map_index: int = -1) -> bool:
        """Says whether something was broken. Success of another instance of a mapped task ends nothing."""
        known = self._read(what)
        if known is None or known.is_over or known.map_index != map_index:
            return False
        # Not deleted: a run may ask later whether its failure was told.
        self._write(what, replace(known, is_over=True))
        return True

    def _read(self, what: str) -> Incident | None:
        try:
            data = self._storage.read(_path(what))
            return msgspec.json.decode(data, type=Incident) if data else None
        except (StagedFileDamagedError, msgspec.MsgspecError):
            # Rather one mail too many than none.
            return None

    def _write(self, what: str, incident: Incident) -> None:
        self._storage.write(_path(what), msgspec.json.encode(incident))


def describe(error: BaseException | str | None) -> tuple[str, str]:
    """Cause and detail. Only this product's own errors are quoted: the text of a foreign one may hold payment data."""
    if not isinstance(error, BaseException):
        return "TaskDied", "its process was killed (out of memory?), or its worker was lost"
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, FraudError):
        seen = seen.__cause__
    if seen is None:
        kind = type(error)
        return kind.__name__, f"{kind.__module__}.{kind.__qualname__}: its text is in the task's log"
    lines = str(seen).split("\n")
    return type(seen).__name__, " ".join(lines[0].split())[:_LONGEST_DETAIL]


def message_id(failure: Failure) -> str:
    """Instances of a mapped task that fail at once, each unaware of the other, are one mail to a mail program."""
    text = f"{failure.dag_id}/{failure.run_id}/{failure.what}/{failure.cause}"
    return f"<fraud-incident.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"


def _path(what: str) -> str:
    return f"{FOLDER}/{quote(what, safe='')}.json"
