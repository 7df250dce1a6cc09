"""Housekeeping on a month of runs, one per minute, in the database and on the disk."""

from __future__ import annotations

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.housekeeping import keep_house


@pytest.mark.timeout(3_600)
def test_month_of_minutely_runs_is_trimmed_and_needed_data_stays(scenario: FaultScenario) -> None:
    took = keep_house(scenario.pipeline, minutes_apart=1)
    # Once in a stack's life: every day after, it is a thirtieth of that.
    assert took["housekeeping"] < 900
    assert took["clean-history"] < 900
