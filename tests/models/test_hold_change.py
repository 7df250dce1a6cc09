from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import SettingError
from include.models.hold_change import HoldChange

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
CHANGE = HoldChange("manual__noon", NOON.isoformat())


@pytest.mark.parametrize(
    ("dag_run", "minutes", "superseded"),
    [
        # A run that was triggered earlier, and is cleared or delayed.
        ("manual__older", -1, True),
        # The same run, retried or cleared.
        ("manual__noon", 0, True),
        ("manual__newer", 1, False),
        ("manual__at_once", 0, False),
    ],
)
def test_change_supersedes_same_and_older_runs(dag_run: str, minutes: int, superseded: bool):
    assert CHANGE.supersedes(dag_run, NOON + timedelta(minutes=minutes)) is superseded


def test_from_json_reads_what_to_json_wrote():
    assert HoldChange.from_json(CHANGE.to_json()) == CHANGE


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", '{"dag_run": "a"}', '{"dag_run": 1, "triggered": "2026-11-30T12:00:00+00:00"}'),
        *('{"dag_run": "a", "triggered": "noon"}', '{"dag_run": "a", "triggered": "2026-11-30T12:00:00"}'),
        '{"dag_run": "a", "triggered": "2026-11-30T12:00:00+00:00", "more": 1}',
    ],
)
def test_invalid_variable_raises_setting_error(text: str):
    with pytest.raises(SettingError, match=r"fraud_model_hold_change .*: delete the Variable"):
        HoldChange.from_json(text)
