from __future__ import annotations

import pytest

from benchmarks.backlog import _rates


def test_each_run_s_rate_counts_from_the_end_of_the_one_before() -> None:
    points = [(0.0, 0), (9.0, 500), (10.0, 1_000), (19.0, 3_000), (29.5, 4_000)]
    assert _rates(points, 2.0, [30.0, 12.0, 20.0]) == [100.0, 250.0, 100.0]


def test_a_run_that_committed_nothing_has_no_rate_and_its_time_counts_for_nobody() -> None:
    assert _rates([(0.0, 0), (5.0, 100)], 0.0, [2.0, 7.0]) == pytest.approx([20.0])
