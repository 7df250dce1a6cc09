"""Trim the history in Airflow's database once a day."""

from __future__ import annotations

from collections.abc import Mapping

from dev.stack import airflow
from dev.stack.home import StackHome
from dev.stack.part import BIN, Part

EVERY_HOURS = 24


class History(Part):
    """Run `fraud clean-history`, which sleeps between two trims."""

    name = "history"
    # The API server creates the tables.
    needs = ("api-server",)

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        return [str(BIN / "fraud"), "clean-history", "--every", str(EVERY_HOURS)]

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return Airflow's environment."""
        return airflow.environment(home)

    def check(self, home: StackHome, started: float) -> None:
        """Accept the process while it runs: it has no port to ask."""
