"""What trims the history in Airflow's database, once a day. Between, it sleeps."""

from __future__ import annotations

from collections.abc import Mapping

from dev.stack import airflow
from dev.stack.home import Home
from dev.stack.part import BIN, Part

EVERY_HOURS = 24


class History(Part):
    name = "history"
    # It makes the tables.
    needs = ("api-server",)

    def command(self, home: Home) -> list[str]:
        return [str(BIN / "fraud"), "clean-history", "--every", str(EVERY_HOURS)]

    def environment(self, home: Home) -> Mapping[str, str]:
        return airflow.environment(home)

    def check(self, home: Home, started: float) -> None:
        """It has nothing to answer with: it is there, or it has ended."""
