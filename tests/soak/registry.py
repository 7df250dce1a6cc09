"""The kinds of fault: each takes the context, strikes a run that is at work, and says what was seen of it.

NoEffectError says that nothing was. What a person must mend is mended by the strike, as the error text asks for.
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
