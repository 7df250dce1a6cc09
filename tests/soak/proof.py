"""Verifies the output part by part: before payments expire or their topic is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from include.verify.findings import TOPIC_KINDS
from tests.support.fault_scenario import FaultScenario, repeated_payments
from tests.support.ledger_scenario import LedgerScenario
from tests.support.mailed import Place, check_mailed

FIGURES = ("messages", "due", "scored", "dead_letters", *TOPIC_KINDS)


class Proof:
    """`start` is by partition the first offset that is not verified yet, by default 0."""

    def __init__(self, scenario: FaultScenario) -> None:
        self._scene = scenario
        self.start = dict(scenario.start)
        self.figures: Counter[str] = Counter()
        self.problems: list[str] = []
        # Of each topic that is gone; its places are those of the next one.
        self._frauds: list[dict[Place, str]] = []

    def prove(self, ends: Mapping[int, int]) -> None:
        """Verify that each payment before these committed offsets came out once and unchanged."""
        verdict = self._scene.verify({number: (self.start.get(number, 0), end) for number, end in ends.items()})
        self.figures.update({name: verdict.count(name) for name in FIGURES})
        self.problems += [f"{kind}: {one}" for kind in TOPIC_KINDS for one in verdict.findings(kind)]
        self.start |= ends

    def reset(self) -> None:
        """Prepare for a recreated topic and empty outputs."""
        self._frauds.append(self._scene.frauds(self._scene.window))
        self.outputs()
        self._scene.reset()
        self.start = {}

    def outputs(self) -> None:
        """Verify that no payment came out again after it was verified, and each has its own prediction."""
        self.problems += [f"double: {source} row {row}" for source, row in repeated_payments(self._scene.times())]
        try:
            self._scene.check_predictions()
        except AssertionError as error:
            self.problems.append(f"predictions: {error}")

    def ledger(self, ledger: LedgerScenario) -> None:
        """Verify that each published payment is recorded once and unchanged, and each batch has its record."""
        window = {number: (low, self._scene.group.ends()[number]) for number, low in self._scene.group.lows().items()}
        self.figures["rows in the ledger"] = ledger.rows()
        self.problems += [f"ledger: {problem}" for problem in ledger.problems(window)]

    def mails(self, most_again: int) -> None:
        """Verify that each batch with frauds has one report. A fault may have caused a second one."""
        mailed = self._scene.mailed()
        single = {one.message_id: one for one in mailed}
        again = len(mailed) - len(single)
        if again > most_again:
            self.problems.append(f"{again} mails came again, {most_again} were provoked")
        waiting = list(single.values())
        for frauds in (*self._frauds, self._scene.frauds(self._scene.window)):
            batches = set(frauds.values())
            try:
                check_mailed(frauds, [one for one in waiting if one.batch in batches])
            except AssertionError as error:
                self.problems.append(f"reports: {error}")
            waiting = [one for one in waiting if one.batch not in batches]
        self.problems += [f"reports: that of batch {one.batch} tells of no fraud on the topic" for one in waiting]
