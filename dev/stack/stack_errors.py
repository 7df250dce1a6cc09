"""The one error of the local stack."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """One line that names the part, what is wrong with it and where its log is."""

    def __init__(self, part: str, problem: str, log: Path | None = None) -> None:
        super().__init__(f"{part}: {problem}" + (f"; log: {log}" if log else ""))
