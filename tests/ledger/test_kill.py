"""What dies, freezes or comes twice while it records: each message is in the ledger once all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.errors import LedgerError
from include.ledger.connection import LedgerConnection
from include.ledger.recorder import record
from tests.ledger.test_recorder import by_source, letters, output, produce, scored
from tests.support.ledger import query, sources
from tests.support.live_stack import LiveStack
from tests.support.publisher import HaltedProcess
from tests.support.recorder import ROWS, recorder
from tests.support.scoring import Scoring
from tests.verify.test_ledger_comparison import environment

Make = Callable[..., Scoring]
# 25 rows make three transactions.
COUNT = int(2.5 * ROWS)
ANYWHERE = [
    "ledger transaction 1", "ledger transaction 3", "rows written 1", "rows written 2", "rows written 3", "recorded 1",
]  # fmt: skip


@pytest.fixture
def here(scoring: Make) -> Scoring:
    made = scoring(2, outputs=2)
    scored(made, COUNT)
    twice = next(one for one in output(made) if "row" in one.headers)
    produce(made, twice.value, 0, **twice.headers)
    produce(made, b"no prediction", 1, colour="red")
    return made


def start(here: Scoring, ledger: LedgerConnection, point: str) -> HaltedProcess:
    return recorder(point, environment(here, ledger))


def check(here: Scoring, ledger: LedgerConnection) -> None:
    """Each published payment is a row, with its own prediction; what is none is one dead letter."""
    assert sources(ledger) == sorted(set(by_source(output(here))))
    assert [one.value for one in letters(here)] == [b"no prediction"]
    assert record(here.cluster, here.settings, ledger).messages == 0
    # Nothing was written a second time.
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


@pytest.mark.parametrize("point", ANYWHERE)
def test_a_recorder_killed_anywhere_leaves_each_message_once(here: Scoring, ledger: LedgerConnection, point: str):
    start(here, ledger, point).kill()
    assert len(sources(ledger)) < COUNT or point == "recorded 1"
    assert letters(here) == []
    record(here.cluster, here.settings, ledger)
    check(here, ledger)


@pytest.mark.parametrize("point", ANYWHERE)
def test_a_frozen_recorder_holds_up_nobody_and_changes_nothing_when_it_wakes_up(
    here: Scoring, ledger: LedgerConnection, point: str
):
    zombie = start(here, ledger, point)
    zombie.freeze()
    record(here.cluster, here.settings, ledger)
    check(here, ledger)
    before = query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1")
    code, words = zombie.go_on()
    if point == "recorded 1":
        # Only the group was left to be told, and it is.
        assert (code, words) == (0, f"{COUNT + 2} messages")
    else:
        assert code == 1
        assert "a newer attempt has taken over" in words, words
    assert query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1") == before
    check(here, ledger)


@pytest.mark.parametrize("point", ["ledger transaction 2", "rows written 2"])
@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_database_that_is_restarted_in_mid_run(
    here: Scoring, ledger: LedgerConnection, services: LiveStack, point: str, ending: str
):
    halted = start(here, ledger, point)
    getattr(services, ending)("ledger")
    with pytest.raises(LedgerError, match="does not answer"):
        record(here.cluster, here.settings, ledger)
    services.start("ledger")
    code, words = halted.go_on()
    assert code == 1
    assert "LedgerError" in words
    assert 0 < len(sources(ledger)) < COUNT
    record(here.cluster, here.settings, ledger)
    check(here, ledger)
