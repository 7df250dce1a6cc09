"""The kinds of fault: functions that get the context, cause a fault in a run at work, and return what was observed.

They raise NoEffectError if nothing was observed. If the error asks an operator to do something, they do it.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.soak.context import FaultContext

Strike = Callable[[FaultContext], str]
KINDS: dict[str, Strike] = {}
MAIL_AGAIN, FULL_DISK = "kill: email, accepted", "staging disk full"


def kind(name: str) -> Callable[[Strike], Strike]:
    def add(strike: Strike) -> Strike:
        KINDS[name] = strike
        return strike

    return add
