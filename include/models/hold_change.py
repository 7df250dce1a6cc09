"""Record which run last set or ended a hold, so that an older run that is cleared later does not change it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from include.errors import SettingError

HOLD_CHANGE_VARIABLE = "fraud_model_hold_change"


@dataclass(frozen=True)
class HoldChange:
    """`dag_run` is the id of that run, `triggered` when it was triggered: clearing it changes neither."""

    dag_run: str
    triggered: str

    def supersedes(self, dag_run: str, triggered: datetime) -> bool:
        """Return whether a run must leave the hold as it is: this change is its own, or that of a newer run."""
        return self.dag_run == dag_run or datetime.fromisoformat(self.triggered) > triggered

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> HoldChange:
        """Raise SettingError where the Variable holds something else: a person may have edited it."""
        try:
            change = cls(**json.loads(text))
            zoned = datetime.fromisoformat(change.triggered).tzinfo is not None
        except (ValueError, TypeError):
            zoned = False
        if not zoned or not isinstance(change.dag_run, str):
            raise SettingError(
                f"the Airflow Variable {HOLD_CHANGE_VARIABLE} does not name the run that changed the hold last, and "
                "when it was triggered: delete the Variable"
            )
        return change
