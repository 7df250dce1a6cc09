"""A recorder or database that dies or freezes while it records: each message is still in the ledger once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.errors import LedgerError
from include.ledger.connection import LedgerConnection
from include.ledger.recorder import record
from tests.ledger.test_recorder import by_source, dead_letters, output, produce, scored
from tests.support.ledger import query, sources
from tests.support.live_stack import LiveStack
from tests.support.publisher import HaltedProcess
from tests.support.recorder import ROWS, recorder
from tests.support.scoring import Scoring
from tests.verify.test_ledger_comparison import environment

Make = Callable[..., Scoring]
# 25 rows make three transactions.
COUNT = int(2.5 * ROWS)
POINTS = [
    "ledger transaction 1", "ledger transaction 3", "rows written 1", "rows written 2", "rows written 3", "recorded 1",
]  # fmt: skip


@pytest.fixture
def pipeline(scoring: Make) -> Scoring:
    """An output topic with 25 predictions, one of them twice, and one message that is not a prediction."""
    made = scoring(2, outputs=2)
    scored(made, COUNT)
    repeated = next(message for message in output(made) if "row" in message.headers)
    produce(made, repeated.value, 0, **repeated.headers)
    produce(made, b"no prediction", 1, colour="red")
    return made


def start_recorder(pipeline: Scoring, ledger: LedgerConnection, point: str) -> HaltedProcess:
    return recorder(point, environment(pipeline, ledger))


def check_ledger(pipeline: Scoring, ledger: LedgerConnection) -> None:
    """Assert that each prediction is one row, and the other message is one dead letter."""
    assert sources(ledger) == sorted(set(by_source(output(pipeline))))
    assert [letter.value for letter in dead_letters(pipeline)] == [b"no prediction"]
    assert record(pipeline.cluster, pipeline.settings, ledger).messages == 0
    # No row was written twice.
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]


@pytest.mark.parametrize("point", POINTS)
def test_killed_recorder_leaves_each_message_recorded_once(pipeline: Scoring, ledger: LedgerConnection, point: str):
    start_recorder(pipeline, ledger, point).kill()
    assert len(sources(ledger)) < COUNT or point == "recorded 1"
    assert dead_letters(pipeline) == []
    record(pipeline.cluster, pipeline.settings, ledger)
    check_ledger(pipeline, ledger)


@pytest.mark.parametrize("point", POINTS)
def test_frozen_recorder_blocks_no_other_and_changes_nothing_when_it_resumes(
    pipeline: Scoring, ledger: LedgerConnection, point: str
):
    frozen = start_recorder(pipeline, ledger, point)
    frozen.freeze()
    record(pipeline.cluster, pipeline.settings, ledger)
    check_ledger(pipeline, ledger)
    before = query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1")
    code, text = frozen.go_on()
    if point == "recorded 1":
        # Only the commit of the group's offsets was left, which succeeds.
        assert (code, text) == (0, f"{COUNT + 2} messages")
    else:
        assert code == 1
        assert "a newer attempt has taken over" in text, text
    assert query(ledger, "SELECT known::text FROM ledger.predictions known ORDER BY 1") == before
    check_ledger(pipeline, ledger)


@pytest.mark.parametrize("point", ["ledger transaction 2", "rows written 2"])
@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_restarted_database_fails_the_run_and_the_next_run_completes_it(
    pipeline: Scoring, ledger: LedgerConnection, services: LiveStack, point: str, ending: str
):
    halted = start_recorder(pipeline, ledger, point)
    getattr(services, ending)("ledger")
    with pytest.raises(LedgerError, match="does not answer"):
        record(pipeline.cluster, pipeline.settings, ledger)
    services.start("ledger")
    code, text = halted.go_on()
    assert code == 1
    assert "LedgerError" in text
    assert 0 < len(sources(ledger)) < COUNT
    record(pipeline.cluster, pipeline.settings, ledger)
    check_ledger(pipeline, ledger)
