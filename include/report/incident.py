"""Store open incidents and when operators were last mailed: one small file for each task in the staging area.

Operators get a mail about the first failure, then only reminders while the cause stays the same. They get another one
for a new cause, and for the same cause after the task has succeeded in between, but one only for each of several causes
that alternate. A task causes at most two mails an hour, unless FRAUD_REMINDER_HOURS is 0 or no incident can be stored.
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
_MAX_DETAIL_LENGTH = 500
_RUNS_KEPT = 20
# Enough for a failure a minute during three hours in which no mail server accepts a mail.
_DETAILS_KEPT = 200
_CAUSES_KEPT = 20
# The name of all causes beyond that number.
_OTHER_CAUSES = "other causes"
# Names of errors that an earlier version stored, and what they are now.
_RENAMED_CAUSES = {"KafkaError": "ClusterError", "KafkaAccessError": "ClusterAccessError"}
_MOST_MAILS = 2
_MAILS_WITHIN = timedelta(hours=1)


@dataclass(frozen=True)
class Failure:
    """A failure to mail operators about. `what`: a task, or a run that is late. `cause`: the kind of error. `detail`:
    one line about it."""

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
    """An earlier cause of a task that now fails for another one. `told`: when a mail named it."""

    since: datetime
    failures: int
    told: datetime | None = None
    detail: str = ""


@dataclass(frozen=True)
class Incident:
    """A task that fails for the same cause since `since`.

    `told`: when the last mail was accepted. `run_ids`: the last runs that failed, also of earlier incidents.
    `map_index`: the instance that failed last. `details`: by text, whether a mail contained it. `causes`: other causes
    since the task last succeeded. `mails`: when the last ones were accepted, also of earlier incidents. `held_back`:
    causes of closed incidents that no mail has named.
    """

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
        """Return a new incident that begins with the failure."""
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
        """Return the details that no mail contained yet."""
        return " ".join(detail for detail, told in self.details.items() if not told)

    @property
    def untold_causes(self) -> dict[str, Cause]:
        """Return the other causes that no mail has named, the newest last."""
        return _merged(self.held_back, _untold(self.causes))

    def with_detail(self, detail: str) -> dict[str, bool]:
        """Return `details` with one more."""
        details = self.details | {detail: self.details.get(detail, False)}
        return dict(list(details.items())[-_DETAILS_KEPT:])

    def is_due(self, reminder: timedelta, at: datetime) -> bool:
        """Return whether a mail is due at `at`. With a `reminder` of zero, every failure causes a mail."""
        if reminder and not self.may_mail(at):
            return False
        return self.told is None or bool(self.untold_causes) or self.last - self.told >= reminder

    def may_mail(self, at: datetime) -> bool:
        """Return whether the task has caused fewer than two mails in the hour before `at`."""
        return sum(at - mail < _MAILS_WITHIN for mail in self.mails) < _MOST_MAILS

    def mailed(self, at: datetime) -> Incident:
        """Return the incident with a mail accepted at `at` that named all its causes and details."""
        return replace(
            self,
            told=at,
            details=dict.fromkeys(self.details, True),
            causes={name: replace(cause, told=cause.told or at) for name, cause in self.causes.items()},
            held_back={},
            mails=(*self.mails, at)[-_MOST_MAILS:],
        )

    def is_open(self, at: datetime, quiet: timedelta | None) -> bool:
        """Return whether the incident is open: not closed, and its last failure at most `quiet` ago, if given."""
        return not self.is_over and (quiet is None or at - self.last <= quiet)

    def next(self, failure: Failure, quiet: timedelta | None) -> Incident:
        """Return this incident with the failure counted, or a new one that begins with it."""
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
    """The incidents of one DAG of one installation. Several installations may share a storage."""

    def __init__(self, storage: Storage, installation: str, dag_id: str) -> None:
        self.storage = storage
        self.folder = f"{FOLDER}/{hashlib.sha256(installation.encode()).hexdigest()[:12]}/{quote(dag_id, safe='')}"

    def add(self, failure: Failure, *, quiet: timedelta | None = None) -> Incident:
        """Store the failure, and return the incident that it belongs to. `quiet`: as in `Incident.is_open`."""
        known = self._read(failure.what)
        incident = Incident.of(failure) if known is None else known.next(failure, quiet)
        self._write(failure.what, incident)
        return incident

    def has(self, what: str, run_id: str) -> bool:
        """Return whether a failure of the task in this run is stored already."""
        known = self._read(what)
        return known is not None and run_id in known.run_ids

    def record_mail(self, failure: Failure, incident: Incident) -> None:
        """Record that a mail server has accepted the mail about the incident."""
        self._write(failure.what, incident.mailed(failure.at))

    def last(self, what: str) -> Incident | None:
        """Return the task's last incident, which may be closed, or None."""
        return self._read(what)

    def close(self, what: str, map_index: int = -1) -> bool:
        """Close the task's open incident, and return whether there was one.

        The success of another instance of a mapped task does not close it, but any success closes the incident of a
        task that an earlier version did not map.
        """
        known = self._read(what)
        if known is None or known.is_over or known.map_index not in (-1, map_index):
            return False
        # The file stays: a run may ask later whether its failure was mailed.
        self._write(what, replace(known, is_over=True))
        return True

    def _read(self, what: str) -> Incident | None:
        try:
            # An earlier version stored them by task only.
            data = self.storage.read(self._path(what)) or self.storage.read(f"{FOLDER}/{_file(what)}")
            return _with_present_names(msgspec.json.decode(data, type=Incident)) if data else None
        except (StagedFileDamagedError, msgspec.MsgspecError):
            # One mail too many is better than none.
            return None

    def _write(self, what: str, incident: Incident) -> None:
        self.storage.write(self._path(what), msgspec.json.encode(incident))

    def _path(self, what: str) -> str:
        return f"{self.folder}/{_file(what)}"


def _with_present_names(incident: Incident) -> Incident:
    """Return the incident with the present names of its causes."""

    def renamed(causes: Mapping[str, Cause]) -> dict[str, Cause]:
        return {_RENAMED_CAUSES.get(name, name): cause for name, cause in causes.items()}

    cause = _RENAMED_CAUSES.get(incident.cause, incident.cause)
    return replace(incident, cause=cause, causes=renamed(incident.causes), held_back=renamed(incident.held_back))


def describe(error: BaseException | str | None) -> tuple[str, str]:
    """Return the cause and the detail of an error. The text of an error of a library is left out, because it may hold
    payment data."""
    if not isinstance(error, BaseException):
        return "TaskDied", "its process was killed (out of memory?), or its worker was lost"
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, FraudError):
        seen = seen.__cause__
    if seen is None:
        kind = type(error)
        return kind.__name__, f"{kind.__module__}.{kind.__qualname__}: see the task's log"
    lines = str(seen).split("\n")
    return type(seen).__name__, " ".join(lines[0].split())[:_MAX_DETAIL_LENGTH]


def message_id(failure: Failure, installation: str) -> str:
    """Return the mail's Message-ID. Instances of a mapped task that fail at the same time have the same one, so that
    mail programs show one mail."""
    text = f"{installation}/{failure.dag_id}/{failure.run_id}/{failure.what}/{failure.cause}"
    return f"<fraud-incident.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"


def _file(what: str) -> str:
    return f"{quote(what, safe='')}.json"
