"""Hold the reason for which a message or a payment becomes a dead letter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a dead letter: a code, which never changes, and a sentence without data of the payment."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"
