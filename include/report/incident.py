"""Incidents: failures of one task for the same cause, and whether operators are to be mailed about them.

Operators get a mail about the first failure, then only reminders while the cause stays the same. They get another
mail for a new cause, and for the same cause after the task has succeeded in between. If several causes alternate, each
is mailed once. A task causes at most two mails an hour, unless FRAUD_REMINDER_HOURS is 0 or no incident can be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Self

from include.errors import FraudError

_MAX_DETAIL_LENGTH = 500
_MAX_RUNS = 20
# Enough for a failure a minute during three hours in which no mail server accepts a mail.
_MAX_DETAILS = 200
_MAX_CAUSES = 20
# The name of all causes beyond that number, which are counted together.
_OTHER_CAUSES = "other causes"
_MAX_MAILS = 2
_MAIL_PERIOD = timedelta(hours=1)


@dataclass(frozen=True)
class Failure:
    """A failure to mail operators about.

    `what`: a task id, the kind of an alarm, or "late run". `cause`: the name of the error. `detail`: one line about it.
    """

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
    """An earlier cause of a task that now fails for another one. `told` is when a mail named it, None if none did."""

    since: datetime
    failures: int
    told: datetime | None = None
    detail: str = ""


@dataclass(frozen=True)
class Incident:
    """A task that fails for the same cause since `since`.

    `told`: when a mail server accepted the last mail. `run_ids`: the last runs that failed, also of earlier incidents.
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
    def from_failure(cls, failure: Failure) -> Self:
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
    def unmailed_details(self) -> str:
        """Return the details that no mail has contained, as one text."""
        return " ".join(detail for detail, is_mailed in self.details.items() if not is_mailed)

    @property
    def unmailed_causes(self) -> dict[str, Cause]:
        """Return the other causes that no mail has named, the newest last."""
        return _merge(self.held_back, _unmailed(self.causes))

    def _with_detail(self, detail: str) -> dict[str, bool]:
        details = self.details | {detail: self.details.get(detail, False)}
        return dict(list(details.items())[-_MAX_DETAILS:])

    def is_due(self, reminder: timedelta, at: datetime) -> bool:
        """Return whether a mail is due at `at`. With a `reminder` of zero, every failure causes a mail."""
        if reminder and not self.may_mail(at):
            return False
        return self.told is None or bool(self.unmailed_causes) or self.last - self.told >= reminder

    def may_mail(self, at: datetime) -> bool:
        """Return whether the task has caused fewer than two mails in the hour before `at`."""
        return sum(at - mail < _MAIL_PERIOD for mail in self.mails) < _MAX_MAILS

    def with_mail(self, at: datetime) -> Incident:
        """Return the incident after a mail that was accepted at `at` and named all its causes and details."""
        return replace(
            self,
            told=at,
            details=dict.fromkeys(self.details, True),
            causes={name: replace(cause, told=cause.told or at) for name, cause in self.causes.items()},
            held_back={},
            mails=(*self.mails, at)[-_MAX_MAILS:],
        )

    def is_open(self, at: datetime, quiet: timedelta | None) -> bool:
        """Return whether the incident is open: not closed, and its last failure at most `quiet` ago, if given."""
        return not self.is_over and (quiet is None or at - self.last <= quiet)

    def next(self, failure: Failure, quiet: timedelta | None) -> Incident:
        """Return this incident with the failure counted, or a new one that begins with it."""
        following = replace(
            Incident.from_failure(failure), mails=self.mails, run_ids=(*self.run_ids, failure.run_id)[-_MAX_RUNS:]
        )
        if not self.is_open(failure.at, quiet):
            return replace(following, held_back=_merge(self.unmailed_causes, _unmailed({self.cause: self._as_cause()})))
        if self.cause == failure.cause:
            earlier, details = Cause(self.since, self.failures, self.told), self._with_detail(failure.detail)
            causes, held_back = self.causes, self.held_back
        else:
            earlier = self.causes.get(failure.cause, Cause(failure.at, 0))
            others = list((self.causes | {self.cause: self._as_cause()}).items())
            others = [(name, cause) for name, cause in others if name != failure.cause]
            causes, details = dict(others[-_MAX_CAUSES:]), following.details
            held_back = _merge(self.held_back, _unmailed(dict(others[:-_MAX_CAUSES])))
        return replace(
            following,
            since=earlier.since,
            failures=earlier.failures + 1,
            told=earlier.told,
            details=details,
            causes=causes,
            held_back=held_back,
        )

    def _as_cause(self) -> Cause:
        return Cause(self.since, self.failures, self.told, next(reversed(self.details), ""))


def _unmailed(causes: Mapping[str, Cause]) -> dict[str, Cause]:
    return {name: cause for name, cause in causes.items() if cause.told is None}


def _merge(*groups: Mapping[str, Cause]) -> dict[str, Cause]:
    """Return the causes of all groups, each once with all its failures; those beyond the limit as one."""
    merged: dict[str, Cause] = {}
    for name, cause in chain.from_iterable(group.items() for group in groups):
        merged[name] = _sum(cause, merged.pop(name, None))
    named = [name for name in merged if name != _OTHER_CAUSES]
    for name in named[:-_MAX_CAUSES]:
        merged[_OTHER_CAUSES] = replace(_sum(merged.pop(name), merged.get(_OTHER_CAUSES)), detail="")
    return merged


def _sum(newer: Cause, older: Cause | None) -> Cause:
    if older is None:
        return newer
    return replace(newer, since=min(older.since, newer.since), failures=older.failures + newer.failures)


def cause_and_detail(error: BaseException | str | None) -> tuple[str, str]:
    """Return the cause and the detail of an error; without one, of a task whose process died.

    The text of a library's error is left out, because it may hold payment data.
    """
    if not isinstance(error, BaseException):
        return "TaskDied", "its process was killed (out of memory?), or its worker was lost"
    ours: BaseException | None = error
    while ours is not None and not isinstance(ours, FraudError):
        ours = ours.__cause__
    if ours is None:
        kind = type(error)
        return kind.__name__, f"{kind.__module__}.{kind.__qualname__}: see the task's log"
    lines = str(ours).split("\n")
    return type(ours).__name__, " ".join(lines[0].split())[:_MAX_DETAIL_LENGTH]


def message_id(failure: Failure, installation: str) -> str:
    """Return the mail's Message-ID.

    Instances of a mapped task that fail for the same cause have the same one, so that mail programs show one mail.
    """
    text = f"{installation}/{failure.dag_id}/{failure.run_id}/{failure.what}/{failure.cause}"
    return f"<fraud-incident.{hashlib.sha256(text.encode()).hexdigest()[:32]}@fraud-scoring.local>"
