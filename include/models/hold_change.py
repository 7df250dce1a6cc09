"""Record which run last set or ended a hold, so that clearing an older run later does not change the hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from include.errors import SettingError

HOLD_CHANGE_VARIABLE = "fraud_model_hold_change"


@dataclass(frozen=True)
class HoldChange:
    """The latest change of the hold.

    `dag_run` is the id of the run that changed it, `triggered` the time (ISO 8601, with a UTC offset) when that run was
    triggered. Clearing the run changes neither.
    """

    dag_run: str
    triggered: str

    def supersedes(self, dag_run: str, triggered: datetime) -> bool:
        """Return whether a run must not change the hold, because it or a newer run has already changed it."""
        return self.dag_run == dag_run or datetime.fromisoformat(self.triggered) > triggered

    def to_json(self) -> str:
        """Return the text of the Airflow Variable."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> HoldChange:
        """Return the change in the Variable's text. Raise SettingError if the text is not one: users can edit it."""
        try:
            change = cls(**json.loads(text))
            has_offset = datetime.fromisoformat(change.triggered).tzinfo is not None
        except (ValueError, TypeError):
            has_offset = False
        if not has_offset or not isinstance(change.dag_run, str):
            raise SettingError(
                f"the Airflow Variable {HOLD_CHANGE_VARIABLE} does not name the run that changed the hold last, and "
                "when it was triggered: delete the Variable"
            )
        return change
