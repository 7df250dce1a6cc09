"""Define the error of the local stack."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """Report in one line which part failed, why, and where its log is."""

    def __init__(self, part: str, problem: str, log: Path | None = None) -> None:
        """Compose the line."""
        super().__init__(f"{part}: {problem}" + (f"; log: {log}" if log else ""))
