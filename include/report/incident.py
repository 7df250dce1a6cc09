"""Store open incidents and when operators were last mailed: one small file a task in the staging area, by Airflow and
DAG.

The first failure is told, then nothing while the same thing stays broken, but for a reminder now and then. Another
cause is told again, and so is the same cause after the task has succeeded in between. Causes that alternate are told
once each. A task causes at most two mails an hour, unless FRAUD_REMINDER_HOURS is 0 or no incident can be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Self
from urllib.parse import quote

import msgspec

from include.errors import FraudError, StagedFileDamagedError
from include.storage.staging import Storage

FOLDER = "incidents"
_LONGEST_DETAIL = 500
_RUNS_KEPT = 20
# A mail a minute that no server took, for three hours.
_DETAILS_KEPT = 200
_CAUSES_KEPT = 20
# Those beyond, counted together.
_OTHER_CAUSES = "other causes"
_MOST_MAILS = 2
_MAILS_WITHIN = timedelta(hours=1)


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
class Cause:
    """An earlier cause of a task that now fails for another one: first failure, their number, last mail and detail."""

    since: datetime
    failures: int
    told: datetime | None = None
    detail: str = ""


@dataclass(frozen=True)
class Incident:
    """The same thing failing since `since`. `run_ids`: where it failed of late, this and the incidents before;
    `map_index`: where it failed last; `details`: what was said of it, and whether a mail told it; `causes`: the other
    ones since the task last worked; `mails`: when the last ones went out, of this and the incidents before;
    `held_back`: causes of incidents that are over, which no mail has told."""

    cause: str
    since: datetime
    last: datetime
    failures: int = 1
    told: datetime | None = None
    run_ids: tuple[str, ...] = ()
    map_index: int = -1
    is_over: bool = False
    details: dict[str, bool] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    mails: tuple[datetime, ...] = ()
    held_back: dict[str, Cause] = field(default_factory=dict)

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

    @property
    def untold_causes(self) -> dict[str, Cause]:
        """The causes that no mail has told, but for that of this incident, the newest last."""
        return _merged(self.held_back, _untold(self.causes))

    def with_detail(self, detail: str) -> dict[str, bool]:
        details = self.details | {detail: self.details.get(detail, False)}
        return dict(list(details.items())[-_DETAILS_KEPT:])

    def is_due(self, reminder: timedelta, at: datetime) -> bool:
        """Whether a mail is due at `at`. A `reminder` of zero asks for a mail of every failure."""
        if reminder and not self.may_mail(at):
            return False
        return self.told is None or bool(self.untold_causes) or self.last - self.told >= reminder

    def may_mail(self, at: datetime) -> bool:
        return sum(at - mail < _MAILS_WITHIN for mail in self.mails) < _MOST_MAILS

    def mailed(self, at: datetime) -> Incident:
        return replace(
            self,
            told=at,
            details=dict.fromkeys(self.details, True),
            causes={name: replace(cause, told=cause.told or at) for name, cause in self.causes.items()},
            held_back={},
            mails=(*self.mails, at)[-_MOST_MAILS:],
        )

    def is_open(self, at: datetime, quiet: timedelta | None) -> bool:
        """After `quiet` without a failure, an incident is over."""
        return not self.is_over and (quiet is None or at - self.last <= quiet)

    def next(self, failure: Failure, quiet: timedelta | None) -> Incident:
        """This one with the failure counted, or the new one that begins with it."""
        following = replace(
            Incident.of(failure), mails=self.mails, run_ids=(*self.run_ids, failure.run_id)[-_RUNS_KEPT:]
        )
        if not self.is_open(failure.at, quiet):
            return replace(following, held_back=_merged(self.untold_causes, _untold({self.cause: self._as_cause()})))
        if self.cause == failure.cause:
            seen, details = Cause(self.since, self.failures, self.told), self.with_detail(failure.detail)
            causes, held_back = self.causes, self.held_back
        else:
            seen = self.causes.get(failure.cause, Cause(failure.at, 0))
            others = list((self.causes | {self.cause: self._as_cause()}).items())
            others = [(name, one) for name, one in others if name != failure.cause]
            causes, details = dict(others[-_CAUSES_KEPT:]), following.details
            held_back = _merged(self.held_back, _untold(dict(others[:-_CAUSES_KEPT])))
        return replace(
            following,
            since=seen.since,
            failures=seen.failures + 1,
            told=seen.told,
            details=details,
            causes=causes,
            held_back=held_back,
        )

    def _as_cause(self) -> Cause:
        return Cause(self.since, self.failures, self.told, next(reversed(self.details), ""))


def _untold(causes: Mapping[str, Cause]) -> dict[str, Cause]:
    return {name: cause for name, cause in causes.items() if cause.told is None}


def _merged(*groups: Mapping[str, Cause]) -> dict[str, Cause]:
    """Return the causes of all groups, each once with all its failures; those beyond the bound as one."""
    merged: dict[str, Cause] = {}
    for name, cause in chain.from_iterable(group.items() for group in groups):
        merged[name] = _sum(cause, merged.pop(name, None))
    named = [name for name in merged if name != _OTHER_CAUSES]
    for name in named[:-_CAUSES_KEPT]:
        merged[_OTHER_CAUSES] = replace(_sum(merged.pop(name), merged.get(_OTHER_CAUSES)), detail="")
    return merged


def _sum(newer: Cause, older: Cause | None) -> Cause:
    if older is None:
        return newer
    return replace(newer, since=min(older.since, newer.since), failures=older.failures + newer.failures)


class Incidents:
    """Those of one DAG of one installation: others may share the storage, and know other runs."""

    def __init__(self, storage: Storage, installation: str, dag_id: str) -> None:
        self.storage = storage
        self.folder = f"{FOLDER}/{hashlib.sha256(installation.encode()).hexdigest()[:12]}/{quote(dag_id, safe='')}"

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        """The incident that this failure belongs to, itself counted. `quiet`: as `Incident.is_open` has it."""
        known = self._read(failure.what)
        incident = Incident.of(failure) if known is None else known.next(failure, quiet)
        self._write(failure.what, incident)
        return incident

    def has(self, what: str, run_id: str) -> bool:
        """Whether its failure in this run was counted already."""
        known = self._read(what)
        return known is not None and run_id in known.run_ids

    def told(self, failure: Failure, incident: Incident) -> None:
        """To be called once a mail server has accepted the mail."""
        self._write(failure.what, incident.mailed(failure.at))

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
            # An earlier version kept them by task alone.
            data = self.storage.read(self._path(what)) or self.storage.read(f"{FOLDER}/{_file(what)}")
            return msgspec.json.decode(data, type=Incident) if data else None
        except (StagedFileDamagedError, msgspec.MsgspecError):
            # Rather one mail too many than none.
            return None

    def _write(self, what: str, incident: Incident) -> None:
        self.storage.write(self._path(what), msgspec.json.encode(incident))

    def _path(self, what: str) -> str:
        return f"{self.folder}/{_file(what)}"


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


def message_id(failure: Failure, installation: str) -> str:
    """Instances of a mapped task that fail at once, each unaware of the other, are one mail to a mail program."""
    text = f"{installation}/{failure.dag_id}/{failure.run_id}/{failure.what}/{failure.cause}"
    return f"<fraud-incident.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"


def _file(what: str) -> str:
    return f"{quote(what, safe='')}.json"
