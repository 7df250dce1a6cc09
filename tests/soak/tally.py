"""Counts the faults of a soak by kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FaultResult:
    """One fault. `counted` is True if it hit a run at work; `evidence` is what was observed."""

    kind: str
    at: float
    counted: bool
    evidence: str
    recovery: float


class Tally:
    def __init__(self, kinds: Iterable[str]) -> None:
        self._kinds = list(kinds)
        self.planned: dict[str, int] = dict.fromkeys(self._kinds, 0)
        self.struck: list[FaultResult] = []

    def counted(self, kind: str | None = None) -> int:
        return sum(one.counted for one in self.struck if kind in (None, one.kind))

    def add(self, one: FaultResult) -> None:
        self.struck.append(one)

    def table(self) -> str:
        lines = [f"{'fault':<28} {'planned':>7} {'struck':>7} {'effect seen':>11} {'recovered in s':>18}"]
        for kind in self._kinds:
            of_kind = [one for one in self.struck if one.kind == kind]
            times = sorted(one.recovery for one in of_kind if one.counted)
            took = f"{times[len(times) // 2]:.0f} (most {times[-1]:.0f})" if times else "-"
            lines.append(f"{kind:<28} {self.planned[kind]:>7} {len(of_kind):>7} {self.counted(kind):>11} {took:>18}")
        whole = f"{'all':<28} {sum(self.planned.values()):>7} {len(self.struck):>7} {self.counted():>11}"
        return "\n".join([*lines, whole])

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self.struck]
